"""Events counted over time, and what charts mark: releases, spikes of crashes, hangs, deployments."""

from collections.abc import Iterable, Sequence
from statistics import median

from datacat.server.query.asked import Asked
from datacat.server.query.cohorts import of_shelf
from datacat.server.query.columns import Columns
from datacat.server.query.ground import Ground
from datacat.server.query.health import TIME, dimensions, filled
from datacat.server.query.rolled import biggest, cut, gather
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.spans import buckets
from datacat.store.shelf import HangRow, Shelf

BY = ("name", "category", "severity", "product", "version", "exception")
COUNT = Column("count", "integer", "events")
SESSIONS = Column("sessions", "integer", "sessions that logged one; null where only roll-ups were asked", optional=True)
KINDS = ("release", "crash_spike", "hang", "server", "deploy")
DEPLOY_EVENTS = ("deploy", "deployment", "deployed")
MAX_MARKS = 200
"""Of each kind, the newest."""
SPIKE_CRASHES = 5
SPIKE_FACTOR = 3
"""A bucket is a spike with so many crashes, and so many times the median of all buckets."""
ANNOTATIONS = (
    Column("time", "time_ms", "when, or since when"),
    Column("timeEnd", "time_ms", "until when; null for a moment", optional=True),
    Column("title", "text", "what"),
    Column("text", "text", "in a sentence"),
    Column("tags", "text", "kind, product and version, separated by commas"),
    Column("id", "text", "tells marks apart"),
)


def events_timeseries(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/events/timeseries."""
    by: Sequence[str] = asked["by"]
    found_by = ["level" if name == "severity" else name for name in by]
    also = [name for name in ("level", "category") if name not in found_by]
    buckets_ = cut(asked)
    columns = [TIME, *dimensions(by), COUNT, SESSIONS]
    if not buckets_.starts:
        return Result(columns, [])
    levels = tuple(f"level:{word}" for word in asked["severity"])  # what is not asked for need not be gathered
    all_by = (*found_by, *also)
    found = gather(
        asked, ground, ("event",), asked["name"], all_by, bucketed=buckets_, tags=levels, distributions=False
    )  # fmt: skip
    places = {name: at for at, name in enumerate(all_by)}
    counts: dict[tuple[int, tuple[str, ...]], int] = {}
    sessions: dict[tuple[int, tuple[str, ...]], set[str]] = {}
    sizes: dict[tuple[str, ...], float] = {}
    wanted = [
        (places[place], asked[name]) for name, place in (("severity", "level"), ("category", "category")) if asked[name]
    ]
    for (t, group), cell in found.cells.items():
        if all(group[at] in words for at, words in wanted):
            key = (t, group[: len(by)])
            counts[key] = counts.get(key, 0) + cell.count
            sizes[group[: len(by)]] = sizes.get(group[: len(by)], 0) + cell.count
            if found.sessions is not None:
                sessions.setdefault(key, set()).update(found.sessions.get((t, group), ()))
    named = biggest(sizes, asked["top"])
    groups = sorted({named(group) for group in sizes} or (set() if by else {()}))
    table = {(start, group): [0, set[str]()] for start in buckets_.starts for group in groups}
    for (t, group), count in counts.items():
        entry = table[t, named(group)]
        entry[0] += count  # type: ignore[operator]
        entry[1] |= sessions.get((t, group), set())  # type: ignore[operator]
    rows: list[Row] = [
        {
            "time": start // 1000,
            **dict(zip(by, group, strict=True)),
            "count": count,
            "sessions": None if found.sessions is None else len(some),  # type: ignore[arg-type]
        }
        for (start, group), (count, some) in table.items()
    ]
    meta = {
        **found.meta,
        "interval_ms": buckets_.interval_us // 1000,
        "partial_last": buckets_.edges[-1] > asked.now_us or buckets_.edges[-1] % buckets_.interval_us != 0,
    }
    return Result(columns, filled(rows, asked, ["count"]), meta=meta)


def annotations(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/annotations: marks for charts, by time."""
    rows: list[Row] = []
    with ground.store.fleet.reading() as shelves:
        mine = {key: shelf for key, shelf in shelves.items() if of_shelf(asked, *key) and len(shelf)}
        if "release" in asked["kinds"]:
            rows += _newest(_release(key, shelf, asked) for key, shelf in mine.items())
        if "hang" in asked["kinds"]:
            rows += _newest(_hang(key, hang, asked) for key, shelf in mine.items() for hang in shelf.hangs)
        if "crash_spike" in asked["kinds"]:
            rows += _spikes(list(mine.values()), asked)
    started = ground.pulse.started_us if ground.pulse else -1
    if "server" in asked["kinds"] and asked.span.start <= started < asked.span.stop:
        rows.append(_mark("server", started, None, "datacat started", "the server started", (), str(started)))
    if "deploy" in asked["kinds"]:
        rows += _newest(_deployments(asked, ground))
    rows.sort(key=lambda row: (row["time"], row["id"]))
    return Result(ANNOTATIONS, rows)


def _newest(rows: Iterable[Row | None]) -> list[Row]:
    found = [row for row in rows if row]
    return sorted(found, key=lambda row: row["time"])[-MAX_MARKS:]


def _release(key: tuple[str, str], shelf: Shelf, asked: Asked) -> Row | None:
    first = shelf.created[0]
    if not asked.span.start <= first < asked.span.stop:
        return None
    return _mark("release", first, None, f"{key[0]} {key[1]}", "first session of this version", key, "-".join(key))


def _hang(key: tuple[str, str], hang: HangRow, asked: Asked) -> Row | None:
    if not asked.span.start <= hang.start < asked.span.stop:
        return None
    name = f"{hang.id}-{hang.start}"
    return _mark("hang", hang.start, hang.end or None, f"{key[0]} hung", hang.outcome, key, name)


def _spikes(shelves: list[Shelf], asked: Asked) -> list[Row]:
    cut_ = buckets(asked.span, asked["interval"], 100)
    if not cut_.starts:
        return []
    crashes = Columns(shelves, cut_.edges, asked.now_us).finished("crashed")
    usual = median(crashes)
    return [
        _mark(
            "crash_spike", start, start + cut_.interval_us, f"{count} crashes", "many more than usual", (), str(start)
        )
        for start, count in zip(cut_.starts, crashes, strict=True)
        if count >= max(SPIKE_CRASHES, SPIKE_FACTOR * usual)
    ]


def _deployments(asked: Asked, ground: Ground) -> list[Row]:
    found = gather(
        asked, ground, ("event",), DEPLOY_EVENTS, ("product", "version", "name"),
        bucketed=cut(asked), distributions=False,
    )  # fmt: skip
    marks = []
    for (t, (product, version, name)), cell in found.cells.items():
        text = f"{cell.count} x {name}"
        key = f"{t}-{product}-{version}-{name}"
        marks.append(_mark("deploy", cell.last_t, None, f"{product} {version}", text, (product, version), key))
    return marks


def _mark(kind: str, t: int, end: int | None, title: str, text: str, key: Sequence[str], name: str) -> Row:
    return {
        "time": t // 1000,
        "timeEnd": None if end is None else end // 1000,
        "title": title,
        "text": text,
        "tags": ",".join((kind, *key)),
        "id": f"{kind}-{name}",
    }
