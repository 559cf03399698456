"""Crash groups and hang groups: how often, since which version, and which ones are new or have come back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from datacat.server.query.asked import Asked
from datacat.server.query.cohorts import passes
from datacat.server.query.columns import quantile
from datacat.server.query.ground import Ground
from datacat.server.query.ordering import newest_version, ordered
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.spans import US, Span
from datacat.store import Fleet, Head
from datacat.store.fleet import Shelves
from datacat.store.shelf import machine_of
from datacat.wire.times import rfc3339

MIN_SESSIONS_WITHOUT = 20
"""A version with so many sessions and none of the group's failures was without it: seen again later is a regression."""

_COMMON = (
    Column("signature", "text", "the group: what and where, the same on every machine"),
    Column("title", "text", "the same for people"),
    Column("product", "text", "its product"),
    Column("count", "integer", "how often in the span"),
    Column("sessions", "integer", "in how many sessions"),
    Column("machines", "integer", "on how many machines"),
    Column("first_version", "text", "the oldest version that ever had it"),
    Column("last_version", "text", "the newest version that ever had it"),
    Column("versions", "integer", "versions that ever had it"),
    Column("first_seen_at", "time", "when it was first seen, ever"),
    Column("last_seen_at", "time", "when it was last seen, ever"),
    Column("new", "flag", "whether it was first seen in the span"),
    Column("regressed", "flag", "whether it was seen in a newer version than one without it"),
    Column("example_session", "text", "the newest session of the span that had it"),
    Column("web_url", "text", "its page"),
)
CRASHES = (*_COMMON[:3], Column("type", "text", "type of the exception, signal, or another reason"), *_COMMON[3:])
HANGS = (
    *_COMMON,
    Column("seconds", "number", "how long those hangs took in all"),
    Column("seconds_p50", "number", "their median"),
    Column("recovered", "integer", "how many were recovered from"),
)


class Failure(NamedTuple):
    """One crash or hang; head is its session's, or what Fleet.glance shows of it, seconds how long a hang took."""

    t: int
    head: Head
    signature: str
    title: str
    type: str
    seconds: float = 0.0
    outcome: str = ""


@dataclass(slots=True)
class _Group:
    """What is known of a group of all time, and its failures in the span, oldest first."""

    product: str
    first: Failure
    last: Failure
    inside: list[Failure] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    """When each version first had it."""

    def add(self, failure: Failure, span: Span) -> None:
        """Count one more."""
        if failure.t < self.first.t:
            self.first = failure
        if failure.t >= self.last.t:
            self.last = failure
        version = failure.head.version
        self.versions[version] = min(failure.t, self.versions.get(version, failure.t))
        if span.start <= failure.t < span.stop:
            self.inside.append(failure)


def crashes(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/crashes: a row for each group that had a crash in the span."""
    return Result(CRASHES, listed(asked, ground, hangs=False)[0])


def hang_groups(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/hangs/groups: a row for each group of hangs with known stacks that had one in the span."""
    return Result(HANGS, listed(asked, ground, hangs=True)[0])


def listed(asked: Asked, ground: Ground, *, hangs: bool) -> tuple[list[Row], dict[str, list[Failure]]]:
    """Return the rows of groups in the order asked for, and for each group its failures in the span, oldest first."""
    fleet = ground.store.fleet
    with fleet.reading() as shelves:
        mine = {key: shelf for key, shelf in shelves.items() if asked.sees_product(key[0])}
        groups = _grouped(_hangs_of(fleet, mine, asked.now_us) if hangs else crashes_of(fleet, mine), asked)
        sizes = _sizes(mine)
    rows = []
    for signature, group in groups.items():
        path = "hangs" if hangs else "crashes"
        row = _row(signature, group, sizes, asked, f"{ground.public_url}/{path}/{signature}")
        if asked["new"] and not row["new"]:
            continue
        rows.append({**row, **(_of_hangs(group) if hangs else {"type": group.last.type})})
    page = ordered(rows, HANGS if hangs else CRASHES, asked["sort"], ("product", "signature"))[: asked["limit"]]
    return page, {row["signature"]: groups[row["signature"]].inside for row in page}


def _of_hangs(group: _Group) -> Row:
    seconds = sorted(failure.seconds for failure in group.inside)
    return {
        "seconds": sum(seconds),
        "seconds_p50": quantile(seconds, 0.5),
        "recovered": sum(failure.outcome == "recovered" for failure in group.inside),
    }


def crashes_of(fleet: Fleet, shelves: Shelves) -> Iterator[Failure]:
    """Yield every crash of some shelves; the caller holds the fleet."""
    for shelf in shelves.values():
        for row in shelf.crashed:
            head = fleet.glance(row.id)
            crash = head.crash if head is not None else None
            if head is not None and crash is not None:
                yield Failure(row.end, head, crash.signature, crash.title, crash.type)


def _hangs_of(fleet: Fleet, shelves: Shelves, now_us: int) -> Iterator[Failure]:
    for shelf in shelves.values():
        for session_id in {row.id for row in shelf.hangs}:
            head = fleet.glance(session_id)
            for hang in head.hangs if head else ():
                if head is not None and hang.signature and hang.title:
                    seconds = max(0, (hang.end_us or now_us) - hang.start_us) / US
                    yield Failure(hang.start_us, head, hang.signature, hang.title, "hang", seconds, hang.outcome)


def _grouped(failures: Iterable[Failure], asked: Asked) -> dict[str, _Group]:
    """Return the groups with a failure in the span that passes all filters; versions and first seen are of all time."""
    groups: dict[str, _Group] = {}
    wanted = asked.values.get("signature")
    for failure in failures:
        if wanted and not wanted.passes(failure.signature):
            continue
        group = groups.get(failure.signature)
        if group is None:
            group = groups[failure.signature] = _Group(failure.head.product, failure, failure)
        group.add(failure, asked.span)
    for group in groups.values():
        group.inside = sorted((one for one in group.inside if passes(asked, one.head)), key=lambda one: one.t)
    return {signature: group for signature, group in groups.items() if group.inside}


def _sizes(shelves: Shelves) -> dict[str, dict[str, int]]:
    """Return how many sessions each version of each product has."""
    sizes: dict[str, dict[str, int]] = {}
    for (product, version), shelf in shelves.items():
        sizes.setdefault(product, {})[version] = len(shelf)
    return sizes


def _row(signature: str, group: _Group, sizes: Mapping[str, Mapping[str, int]], asked: Asked, url: str) -> Row:
    versions = newest_version(group.versions)
    newest = group.inside[-1].head
    return {
        "signature": signature,
        "title": group.last.title,
        "product": group.product,
        "count": len(group.inside),
        "sessions": len({failure.head.id for failure in group.inside}),
        "machines": len({machine_of(failure.head) for failure in group.inside} - {""}),
        "first_version": versions[-1],
        "last_version": versions[0],
        "versions": len(versions),
        "first_seen_at": rfc3339(group.first.t),
        "last_seen_at": rfc3339(group.last.t),
        "new": asked.span.start <= group.first.t < asked.span.stop,
        "regressed": regressed(group.versions, sizes[group.product], asked.span),
        "example_session": newest.id,
        "web_url": url,
    }


def regressed(seen: Mapping[str, int], sizes: Mapping[str, int], span: Span) -> bool:
    """Return whether a failure came back in the span: first seen in a version newer than one without it.

    seen tells when each version first had it, sizes how many sessions each version of the product has.
    """
    had = without = False
    for version in reversed(newest_version(sizes)):
        if version in seen:
            if without and span.start <= seen[version] < span.stop:
                return True
            had, without = True, False
        elif had and sizes[version] >= MIN_SESSIONS_WITHOUT:
            without = True
    return False
