"""The Infinity data source for Grafana, 3.11.1, as far as datacat's files use it: targets, variables, annotations.

Only type json, source url, parser backend. What it does is in framing, wide and asking; here are requests, pages and
refusals. Our own code; the tests name every habit that datacat has to live with.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from grafana import asking, wide
from grafana.asking import Range, Value
from grafana.framing import MISSING, Frame, InfinityError, found, frame_of

Get = Callable[[str, Mapping[str, str]], tuple[int, bytes]]
"""(address, headers) -> (status, body)."""
HEADERS = {"Accept": "application/json;q=0.9,text/plain", "Accept-Encoding": "gzip"}
MAX_PAGES = 5
"""Of a cursor query, unless Grafana's administrator allows more; one more than this is asked for."""


class Option(NamedTuple):
    """One value of a variable, and what a person sees of it."""

    value: str
    text: str


def ask(
    target: Mapping[str, Any], variables: Mapping[str, Value], span: Range, base: str, get: Get, limit: int = MAX_PAGES
) -> Frame:
    """Return the frame of a panel's or rule's target. Raises: InfinityError."""
    assert (target["type"], target["source"], target["parser"]) == ("json", "url", "backend")
    sent = asking.browsed(target, variables)
    columns, root, name = sent.get("columns") or [], sent.get("root_selector", ""), sent["refId"]
    if sent.get("pagination_mode", "none") != "cursor":
        frame = frame_of(_fetch(sent, span, base, get), root, columns, name)
        return wide.finished(frame, sent.get("format", "table"))
    frames: list[Frame] = []
    cursor = ""
    for _ in range(min(int(sent.get("pagination_max_pages") or 1), limit) + 1):
        extra = [(sent["pagination_param_cursor_field_name"], cursor)] if cursor else []
        body = _fetch(sent, span, base, get, extra)
        frames.append(frame_of(body, root, columns, name))
        cursor = _cursor(body, sent["pagination_param_cursor_extraction_path"])
        if not cursor:
            break
    return wide.finished(wide.merged(frames), sent.get("format", "table"))


def _fetch(sent: Mapping[str, Any], span: Range, base: str, get: Get, extra: Sequence[tuple[str, str]] = ()) -> bytes:
    status, body = get(asking.address(base, sent, span, extra), HEADERS)
    if status >= 400:
        # What the body says is never shown.
        raise InfinityError(f"unsuccessful HTTP response\nstatus code : {status}")
    return body


def _cursor(body: bytes, path: str) -> str:
    value = found(json.loads(body), path)
    if value is MISSING:
        raise InfinityError("error while extracting the cursor value")
    return "" if value is None else str(value)


def options(query: Mapping[str, Any], variables: Mapping[str, Value], span: Range, base: str, get: Get) -> list[Option]:
    """Return the values of a query variable. Raises: InfinityError, also when there is none."""
    assert query["queryType"] == "infinity"
    frame = ask(query["infinityQuery"], variables, span, base, get)
    if not frame.fields:
        raise InfinityError("at least one field expected for variable")
    names = {one.name for one in frame.fields}
    value = frame.named("__value") if "__value" in names else frame.fields[0]
    text = frame.named("__text") if "__text" in names else value
    return [Option(*pair) for pair in zip(value.values, text.values, strict=True)]


def as_grafana(frame: Frame) -> dict[str, Any]:
    """Return the JSON of a frame that dataFrameFromJSON of @grafana/data reads."""
    fields = []
    for one in frame.fields:
        told = {"name": one.name, "type": one.kind}
        fields.append({**told, "labels": one.labels} if one.labels is not None else told)
    return {
        "schema": {"name": frame.name, "refId": frame.name, "meta": frame.meta, "fields": fields},
        "data": {"values": [one.values for one in frame.fields]},
    }
