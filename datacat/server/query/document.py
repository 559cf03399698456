"""The chapter about queries in docs/api.md, made from the table."""

from collections.abc import Iterable

from datacat.server.query import parameters
from datacat.server.query.shape import Column, Endpoint, Parameter
from datacat.server.query.table import TABLE

PREFIX = "/api/query/"
BEGIN, END = "<!-- queries: made from the table of endpoints -->", "<!-- end of queries -->"
ADDRESS = "http://localhost:8080"

_INTRO = """\
## Queries

What the pages, Grafana and `curl` ask of many sessions: `GET` below `/api/query/`, with the right *read*. The answer
is `{"rows": [...], "next_cursor": null, "meta": {...}}`: rows are flat, every row has every column, a column has one
type or null, `time` is Unix time in milliseconds and `..._at` RFC 3339, durations are seconds, rates lie between 0
and 1 and are null where there is nothing to divide by. Time series are sorted by time, then by their dimensions;
buckets are aligned to the epoch in UTC, and the first and last are cut to the span. `meta` has `from`, `to`, `as_of`,
`interval_ms` (what it was rounded to), `partial_last`, `truncated` (there may be more than was looked at).
`format=csv` and `format=ndjson` give the bare rows, then the next cursor is in the header `Datacat-Next-Cursor`. What
is wrong with a question is a 400 whose reason is also in the status line.

**Definitions.** A session is *there* in a span when it began in it, or before and was open after the span's begin.
`sessions` are those that were there; `open`, `active`, `hung_now`, `suspended`, `ended`, `crashed` and `abnormal` of
the summary are these by their status now, so they add up. Rates are of the sessions that *started* in the span:
`crash_free_rate` is the share that has not crashed; `unknown_share` beside it is the share of ends that nobody knows
(`end_reason` unknown or lost). `..._machines` are the same by machines. Runtime is the time from begin to end, or to
now, less the time suspended. `mtbf_seconds` is runtime by failures (`failures=crash,hang`), null without one.
`hang_rate` is hangs by 1000 hours of runtime. The time to recover is from the verdict hung to the recovery; hangs
that end otherwise are not in it. Quantiles interpolate linearly (type 7). Durations are of the sessions that ended in
the span. `first_seen_at` of products and versions is of all time; with other dimensions or filters it is of the
sessions that were there. In series `attribute=start` counts crashes, ends and hung sessions where the session began,
`attribute=event` when it happened; `exceptions` count where it began. A head lists the newest 64 hangs of a session
and 32 suspensions.
"""


def chapter() -> str:
    """Return the chapter in Markdown, with the comments around it."""
    parts = [BEGIN, _INTRO, "| method | path | answer |\n|---|---|---|"]
    parts[-1] += "".join(f"\n| GET | `{PREFIX}{one.path}` | {one.title.lower()} |" for one in TABLE)
    shared = (*parameters.COMMON, *parameters.BUCKETS)
    parts.append("### Parameters that most of them take\n\n" + _parameters(shared))
    parts += [_endpoint(one, frozenset(shared)) for one in TABLE]
    return "\n\n".join([*(part.strip() for part in parts), END]) + "\n"


def curl(endpoint: Endpoint) -> str:
    """Return a command that asks the endpoint."""
    path = endpoint.path.replace("{dim}", "version")
    return f"curl -s '{ADDRESS}{PREFIX}{path}?{endpoint.example}'"


def _endpoint(endpoint: Endpoint, shared: frozenset[Parameter]) -> str:
    own = [one for one in endpoint.parameters if one not in shared]
    common = [f"`{one.name}`" for one in endpoint.parameters if one in shared]
    lines = [f"### {endpoint.path}", endpoint.text, f"```sh\n{curl(endpoint)}\n```"]
    lines.append("Parameters: " + (", ".join(common) or "none of the common ones") + (", and:" if own else "."))
    if own:
        lines.append(_parameters(own))
    lines.append(_columns(endpoint.columns))
    return "\n\n".join(lines)


def _parameters(some: Iterable[Parameter]) -> str:
    rows = []
    for one in some:
        words = f": {', '.join(f'`{word}`' for word in one.words)}" if one.words and len(one.words) <= 30 else ""
        default = f" (default `{one.default}`)" if one.default else " (has to be given)" if one.required else ""
        high = f", {one.low} to {one.high}" if one.kind == "count" else ""
        rows.append(f"| `{one.name}` | {_cell(one.text)}{words}{high}{default} |")
    return "| parameter | |\n|---|---|\n" + "\n".join(rows)


def _columns(columns: Iterable[Column]) -> str:
    rows = [
        f"| `{one.name}` | {one.kind}{' or null' if one.optional else ''} | {_cell(one.text)} |"
        for one in columns
        if not one.name.startswith("prev_")
    ]
    return "| column | kind | |\n|---|---|---|\n" + "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
