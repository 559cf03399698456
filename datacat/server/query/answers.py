"""Results as HTTP answers: the envelope in JSON, or the bare rows as CSV or NDJSON."""

import csv
import hashlib
import io
from typing import Any

import msgspec

from datacat.server.query.asked import Asked
from datacat.server.query.shape import Result
from datacat.server.router import Answer
from datacat.wire import routes

FORMATS = {"json": routes.JSON, "csv": "text/csv; charset=utf-8", "ndjson": routes.NDJSON}
_CACHE = "private, max-age=5"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def answer(asked: Asked, result: Result, wanted_tag: str) -> Answer:
    """Return the answer; 304 when the asker has these rows already. What is beyond the rows is in headers for CSV."""
    form = asked["format"]
    if form == "csv":
        body = _csv(result)
    else:
        rows = [msgspec.json.encode(row) for row in result.rows]
        body = b"".join(row + b"\n" for row in rows) if form == "ndjson" else _envelope(asked, result, rows)
    # The time of the answer is left out: the same rows have the same tag.
    seed = body if form != "json" else msgspec.json.encode([result.rows, result.next_cursor, result.meta])
    tag = f'W/"{hashlib.blake2b(seed, digest_size=12).hexdigest()}"'
    headers = {"Content-Type": FORMATS[form], "Cache-Control": _CACHE, "ETag": tag}
    if wanted_tag and any(item.strip() in (tag, tag.removeprefix("W/"), "*") for item in wanted_tag.split(",")):
        return Answer(304, b"", {"ETag": tag, "Cache-Control": _CACHE})
    if result.next_cursor and form != "json":
        headers["Datacat-Next-Cursor"] = result.next_cursor
    return Answer(200, body, headers)


def meta(asked: Asked, result: Result) -> dict[str, Any]:
    """Return the envelope's meta."""
    return {
        "from": asked.span.start // 1000,
        "to": asked.span.stop // 1000,
        "as_of": asked.now_us // 1000,
        "interval_ms": None,
        "partial_last": False,
        "truncated": False,
        **result.meta,
    }


def _envelope(asked: Asked, result: Result, rows: list[bytes]) -> bytes:
    told = msgspec.json.encode({"next_cursor": result.next_cursor, "meta": meta(asked, result)})
    return b'{"rows":[' + b",".join(rows) + b"]," + told[1:]


def _csv(result: Result) -> bytes:
    """Return RFC 4180 CSV; a text that a spreadsheet would run as a formula gets a quote in front."""
    out = io.StringIO()
    writer = csv.writer(out)
    names = [column.name for column in result.columns]
    writer.writerow(names)
    for row in result.rows:
        writer.writerow([_cell(row[name]) for name in names])
    return out.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value
