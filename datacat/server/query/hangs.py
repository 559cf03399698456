"""Hangs one by one, and how long they take."""

import base64
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec

from datacat.errors import WireError
from datacat.server.query.asked import Asked
from datacat.server.query.cohorts import of_shelf, passes
from datacat.server.query.ground import Ground
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.spans import US
from datacat.store import Fleet, Head
from datacat.store.episodes import Hang
from datacat.store.fleet import Shelves
from datacat.store.shelf import HangRow
from datacat.wire.times import rfc3339

OUTCOMES = ("ongoing", "recovered", "suspended", "crashed", "ended")
COLUMNS = (
    Column("started_at", "time", "when it was judged to hang"),
    Column("ended_at", "time", "when that was over", optional=True),
    Column("seconds", "number", "how long it took, or takes until now"),
    Column("outcome", "text", "ongoing, recovered, suspended (nobody knows), crashed or ended"),
    Column("session", "text", "the session"),
    Column("product", "text", "its product"),
    Column("version", "text", "its version"),
    Column("hostname", "text", "the host's name", optional=True),
    Column("title", "text", "what it did, where", optional=True),
    Column("signature", "text", "its group, when its stack is known", optional=True),
    Column("web_url", "text", "the session's page"),
)
SORTS = ("started_at", "seconds")
DISTRIBUTION = (
    Column("bucket", "text", "from and to in seconds"),
    Column("order", "integer", "the place of the bucket"),
    Column("count", "integer", "hangs that are over and took so long"),
)


def hangs(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/hangs: one page of the hangs that began in the span."""
    field, descending = asked["sort"].removeprefix("-"), asked["sort"].startswith("-")
    fleet = ground.store.fleet
    keyed: list[tuple[tuple[float, str, int], HangRow]] = []
    with fleet.reading() as shelves:
        for head, hang in _hangs(asked, fleet, shelves):
            if not asked["outcome"] or hang.outcome in asked["outcome"]:
                value = hang.start if field == "started_at" else _seconds(hang, asked.now_us)
                keyed.append(((value, head.id, hang.start), hang))
        keyed.sort(reverse=descending)
        if (behind := _read_cursor(asked)) is not None:
            keyed = [one for one in keyed if (one[0] < behind if descending else one[0] > behind)]
        page = keyed[: asked["limit"]]
        heads = {hang.id: fleet.lookup(hang.id) for _, hang in page}
    rows = [_row(told, hang, ground, asked.now_us) for _, hang in page if (told := heads[hang.id]) is not None]
    return Result(COLUMNS, rows, _write_cursor(asked, page[-1][0]) if len(keyed) > len(page) else None)


def distribution(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/hangs/distribution: how many of the hangs that are over took how long."""
    bounds = sorted(set(asked["bounds"]))
    counts = [0] * (len(bounds) + 1)
    fleet = ground.store.fleet
    with fleet.reading() as shelves:
        for _, hang in _hangs(asked, fleet, shelves):
            if hang.end and (not asked["outcome"] or hang.outcome in asked["outcome"]):
                counts[bisect_left(bounds, (hang.end - hang.start) / US)] += 1
    names = labels(bounds, "s")
    rows = [{"bucket": name, "order": at, "count": counts[at]} for at, name in enumerate(names)]
    return Result(DISTRIBUTION, rows)


def labels(bounds: list[float], unit: str) -> list[str]:
    """Return a text for each bucket, such that texts of one set of bounds sort as the bounds do."""
    texts = [f"{bound:g}" for bound in bounds]
    width = max((len(text.partition(".")[0]) for text in texts), default=1)
    padded = ["0" * (width - len(text.partition(".")[0])) + text for text in ("0", *texts)]
    tail = f" {unit}" if unit else ""
    return [*(f"{low}-{high}{tail}" for low, high in pairwise(padded)), f"{padded[-1]}+{tail}"]


def _hangs(asked: Asked, fleet: Fleet, shelves: Shelves) -> Iterator[tuple[Head, HangRow]]:
    start, stop = asked.span
    for key, shelf in shelves.items():
        if not shelf.hangs or not of_shelf(asked, *key):
            continue
        for hang in shelf.hangs[bisect_left(shelf.hangs, (start,)) : bisect_left(shelf.hangs, (stop,))]:
            head = fleet.lookup(hang.id)
            if head is not None and passes(asked, head):
                yield head, hang


def _seconds(hang: HangRow, now_us: int) -> float:
    return max(0, (hang.end or now_us) - hang.start) / US


def _row(head: Head, hang: HangRow, ground: Ground, now_us: int) -> Row:
    told = next((one for one in head.hangs if one.start_us == hang.start), Hang(hang.start))
    return {
        "started_at": rfc3339(hang.start),
        "ended_at": rfc3339(hang.end) if hang.end else None,
        "seconds": _seconds(hang, now_us),
        "outcome": hang.outcome,
        "session": head.id,
        "product": head.product,
        "version": head.version,
        "hostname": head.hostname,
        "title": told.title,
        "signature": told.signature,
        "web_url": ground.session_url(head.id),
    }


def _write_cursor(asked: Asked, key: tuple[float, str, int]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([asked["sort"], *key])).decode().rstrip("=")


def _read_cursor(asked: Asked) -> tuple[Any, ...] | None:
    """Return the key that the page begins behind. Raises: WireError."""
    text: str = asked["cursor"]
    if not text:
        return None
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        sort, *key = msgspec.json.decode(plain, type=tuple[str, float, str, int])
    except (ValueError, msgspec.MsgspecError) as error:
        raise WireError("the cursor is not one of ours", hint="begin without a cursor") from error
    if sort != asked["sort"]:
        raise WireError("the cursor belongs to another sort", hint="keep sort while you page")
    return tuple(key)
