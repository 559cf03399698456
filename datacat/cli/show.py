"""datacat show: everything about one session, and why it ended."""

import time
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from datacat.cli import ask, clock, dossier, screen, text
from datacat.cli.screen import Cell, Column
from datacat.cli.why import why
from datacat.wire import routes

_WIDE = 160
"""Longest text of an event or state member; --json has all of it."""
_STATE_LINES = 30
_STACK_LINES = 12


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("session_id", metavar="ID")
@click.option("--events", type=click.IntRange(0), default=20, show_default=True, help="How many of the last events.")
@click.option("--json", "as_json", is_flag=True, help="Print the session object with its transitions.")
@ask.server_option
@click.pass_context
def command(
    ctx: click.Context, session_id: str, events: int, as_json: bool, server: str | None, api_key: str | None
) -> None:
    """Tell everything about one session, and why it ended. The beginning of an ID is enough."""
    with ask.server_of(ctx, server, api_key) as asked:
        whole_id = asked.resolve(session_id)
        # Errors are counted over many events: the exception that ended it may lie before the last few.
        session = asked.session(whole_id, {"events": max(events, 200), "metrics": 1000, "history": 0})
        answer = asked.get(routes.session_path(whole_id, "transitions"), {"limit": 1000})
    transitions = answer["rows"]
    if as_json:
        session["events"] = session["events"][-events:] if events else []
        screen.print_json({**session, "transitions": transitions})
        return
    skew = clock.skew_s(session)
    transitions = [clock.shifted(row, skew) for row in transitions]
    parts = sections(clock.corrected(session), transitions, events, time.time_ns() // 1000)
    out = screen.console()
    if out.is_terminal:
        out.print(_drawn(session, parts))
    else:
        for title, lines in parts:
            click.echo("\n".join([text.tame(title), *(f"  {screen.text_of(line)}" for line in lines), ""]))


Section = tuple[str, list[Cell | str]]


def sections(session: dict[str, Any], transitions: list[dict[str, Any]], events: int, now_us: int) -> list[Section]:
    """Return the page as (title, lines): why, facts, status, state, events, metrics. Pure."""
    shown = (session.get("events") or [])[-events:] if events else []
    parts: list[Section] = [
        (f"{session['product']} {session['version']}  {session['status']}", [why(session, now_us)]),
        ("Facts", [*_facts(session, now_us)]),
        ("Status", [*_transitions(transitions)]),
        ("State", [*_state(session.get("state") or {})]),
        (f"Last {len(shown)} of {session['counts'].get('events', 0)} events", [*_events(shown)]),
        (_metrics_title(session), [*metric_lines(session.get("metrics") or [])]),
    ]
    return [(title, lines) for title, lines in parts if lines]


def _drawn(session: dict[str, Any], parts: list[Section]) -> Group:
    drawn: list[RenderableType] = []
    for at, (title, lines) in enumerate(parts):
        style = text.STATUS_STYLES.get(session["status"], "") if at == 0 else "bold"
        drawn.append(Text(text.tame(title), style))
        shown = [Text(screen.text_of(line), "" if isinstance(line, str) else line.style) for line in lines]
        drawn.append(Padding(Group(*shown), (0, 0, 1, 2)))
    return Group(*drawn)


def _facts(session: dict[str, Any], now_us: int) -> Iterable[str]:
    dropped = session["counts"].get("dropped") or {}
    hangs = session.get("hang_count") or 0
    counts = session["counts"]
    facts = {
        "id": session["id"],
        "environment": session.get("environment"),
        "host": session.get("hostname"),
        "platform": session.get("platform"),
        "pid": session.get("pid"),
        "clock": _clock(session),
        "started": f"{text.date_and_time(session['created_at'])}  ({text.ago(session['created_at'], now_us)})",
        "ended": text.date_and_time(session["ended_at"]) if session.get("ended_at") else None,
        "ran": text.lasted(session, now_us),
        "exit": text.exit_of(session) if session.get("ended_at") else None,
        "last heartbeat": text.date_and_time(session["last_heartbeat"]) if session.get("last_heartbeat") else None,
        "hangs": f"{hangs}, {text.span(session.get('hang_seconds') or 0)} in all" if hangs else None,
        "records": ", ".join(f"{counts.get(kind, 0)} {kind}" for kind in ("events", "errors", "metrics", "states")),
        "delivery": _delivery(counts),
        "dropped": ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or None,
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        if value is not None:
            yield f"{name:<{width}}  {value}"


def _clock(session: dict[str, Any]) -> str | None:
    """Return how wrong the clock of the session's machine is; None when it is right enough."""
    skew = clock.skew_s(session)
    if not skew:
        return None
    return f"{text.span(abs(skew))} {'ahead' if skew > 0 else 'behind'}; the times here are corrected"


def _delivery(counts: dict[str, Any]) -> str | None:
    """Return the ledger: what the journal had, what came of it, what is missing; None when nothing came out of one."""
    written, acknowledged = counts.get("written", 0), counts.get("acknowledged", 0)
    if not written:
        return None
    way = f", {written - acknowledged} on the way" if written > acknowledged else ""
    gaps = f", {counts['gaps']} gaps with {counts.get('lost_bytes', 0)} bytes lost" if counts.get("gaps") else ""
    return f"{acknowledged} of {written} records acknowledged, shipped as {counts.get('shipped', 0)}{way}{gaps}"


def _transitions(rows: list[dict[str, Any]]) -> Iterable[Cell]:
    for row in rows:
        status = row.get("status") or "?"
        why_it = ", ".join(text.compact(row[name]) for name in ("reason", "detail") if row.get(name))
        by = f"by {row['by']}" if row.get("by") else ""
        parts = (text.clock(row["timestamp"]), f"{status:<9}", text.one_line(why_it, _WIDE), by)
        yield Cell("  ".join(filter(None, parts)), text.STATUS_STYLES.get(status, ""))


def _state(state: dict[str, Any]) -> Iterable[str]:
    lines = [f"{path} = {text.one_line(text.compact(value), _WIDE)}" for path, value in text.leaves(state)]
    yield from lines[:_STATE_LINES]
    if len(lines) > _STATE_LINES:
        yield f"... and {len(lines) - _STATE_LINES} more; --json shows all"


def _events(events: list[dict[str, Any]]) -> Iterable[Cell]:
    for event in events:
        style = text.LEVEL_STYLES.get(event["level"], "")
        said = text.one_line(text.event_text(event), _WIDE)
        yield Cell(f"{text.clock(event['timestamp'])}  {event['level']:<8}  {event['name']}  {said}".rstrip(), style)
        known = dossier.lines(event.get("data") or {})
        # The stack of a hang, and of a crash in C, is that of its current thread.
        stack = event.get("stacktrace") or [] if not known or event.get("exception_type") else []
        if len(stack) > _STACK_LINES:
            yield Cell(f"      ... {len(stack) - _STACK_LINES} lines before; --json shows all", "dim")
        for line in stack[-_STACK_LINES:]:
            yield Cell(f"      {text.one_line(line, _WIDE)}", "dim")
        yield from (Cell(f"      {line}", "dim") for line in known)


def _metrics_title(session: dict[str, Any]) -> str:
    shown, total = len(session.get("metrics") or []), session["counts"].get("metrics", 0)
    return f"Metrics, the last {shown} of {total}" if shown < total else "Metrics"


def metric_lines(metrics: list[dict[str, Any]]) -> list[str]:
    """Return one line for each series (name, type, tags): counters summed up, gauges with their last."""
    series: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for metric in metrics:
        key = (metric["name"], metric["type"], ",".join(metric.get("tags") or ()))
        series.setdefault(key, []).append(metric)
    rows = [(name, kind, tags, _sum_up(kind, points)) for (name, kind, tags), points in series.items()]
    columns = (Column("NAME"), Column("TYPE"), Column("TAGS"), Column("VALUE"))
    return screen.plain_table(columns, rows) if rows else []


def _sum_up(kind: str, points: list[dict[str, Any]]) -> str:
    unit = points[-1].get("unit")
    merged = [point.get("metadata") or {} for point in points]
    if kind == "counter":
        return text.quantity(sum(point["value"] for point in points), unit)
    lows = [_told(meta, "min", point["value"]) for meta, point in zip(merged, points, strict=True)]
    highs = [_told(meta, "max", point["value"]) for meta, point in zip(merged, points, strict=True)]
    if kind == "gauge":
        last = text.quantity(points[-1]["value"], unit)
        return last if min(lows) == max(highs) else f"{last}  ({_range(lows, highs, unit)})"
    count = sum(_told(meta, "count", 1) for meta in merged)
    try:
        mean = text.quantity(round(sum(point["value"] for point in points) / count, 6), unit)
    except (ZeroDivisionError, OverflowError):  # a whole number may be larger than any float
        mean = "-"
    return f"{count} times, mean {mean}  ({_range(lows, highs, unit)})"


def _told(metadata: dict[str, Any], name: str, default: Any) -> Any:
    """Return a number of the metadata; anybody may have written something else there."""
    value = metadata.get(name)
    return value if type(value) in (int, float) else default


def _range(lows: list[Any], highs: list[Any], unit: str | None) -> str:
    return f"{text.quantity(min(lows), unit)} to {text.quantity(max(highs), unit)}"
