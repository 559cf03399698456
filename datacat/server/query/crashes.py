"""Crash groups and hang groups: how often, since which version, and which ones are new or have come back."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import NamedTuple

import msgspec

from datacat.server.query.asked import Asked, Filter
from datacat.server.query.cohorts import is_plain, passes
from datacat.server.query.columns import quantile
from datacat.server.query.ground import Ground
from datacat.server.query.ordering import newest_version, ordered
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.spans import US, Span
from datacat.store import Fleet
from datacat.store.fleet import Shelves
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


class Failure(msgspec.Struct, gc=False):
    """One crash or hang of a session; seconds is how long a hang took."""

    t: int
    session: str
    product: str
    version: str
    machine: str
    signature: str
    title: str
    type: str
    seconds: float = 0.0
    outcome: str = ""


class _Group(NamedTuple):
    """The failures of a group of all time, and those in the span that pass all filters; both oldest first."""

    ever: list[Failure]
    inside: list[Failure]

    def versions(self) -> dict[str, int]:
        """Return when each version first had it."""
        return {failure.version: failure.t for failure in reversed(self.ever)}


def crashes(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/crashes: a row for each group that had a crash in the span."""
    return Result(CRASHES, listed(asked, ground, hangs=False)[0])


def hang_groups(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/hangs/groups: a row for each group of hangs with known stacks that had one in the span."""
    return Result(HANGS, listed(asked, ground, hangs=True)[0])


def listed(asked: Asked, ground: Ground, *, hangs: bool) -> tuple[list[Row], dict[str, list[Failure]]]:
    """Return the rows of groups in the order asked for, and for each group its failures in the span, oldest first."""
    fleet, wanted = ground.store.fleet, asked.values.get("signature") or None
    with fleet.reading() as shelves:
        mine = {key: shelf for key, shelf in shelves.items() if asked.sees_product(key[0])}
        found = _hangs_of(mine, wanted, asked.now_us) if hangs else _crashes_of(fleet, mine, wanted)
        groups = _grouped(found, asked, fleet)
        sizes = _sizes(mine)
    rows = []
    for signature, group in groups.items():
        path = "hangs" if hangs else "crashes"
        row = _row(signature, group, sizes, asked, f"{ground.public_url}/{path}/{signature}")
        if asked["new"] and not row["new"]:
            continue
        rows.append({**row, **(_of_hangs(group) if hangs else {"type": group.ever[-1].type})})
    page = ordered(rows, HANGS if hangs else CRASHES, asked["sort"], ("product", "signature"))[: asked["limit"]]
    return page, {row["signature"]: groups[row["signature"]].inside for row in page}


def _of_hangs(group: _Group) -> Row:
    seconds = sorted(failure.seconds for failure in group.inside)
    return {
        "seconds": sum(seconds),
        "seconds_p50": quantile(seconds, 0.5),
        "recovered": sum(failure.outcome == "recovered" for failure in group.inside),
    }


def _crashes_of(fleet: Fleet, shelves: Shelves, wanted: Filter | None) -> Iterator[Failure]:
    """Yield every crash of some shelves whose signature is wanted (None: any); the caller holds the fleet."""
    for (product, version), shelf in shelves.items():
        for row in shelf.crashed:
            seen = fleet.glance(row.id)
            crash = seen.crash if seen is not None else None
            if crash is not None and (wanted is None or wanted.passes(crash.signature)):
                signature, title = crash.signature, crash.title
                yield Failure(row.end, row.id, product, version, row.machine, signature, title, crash.type)


def _hangs_of(shelves: Shelves, wanted: Filter | None, now_us: int) -> Iterator[Failure]:
    """Yield every hang with a known stack, likewise."""
    for (product, version), shelf in shelves.items():
        for start, session, end, outcome, machine, signature, title in shelf.hangs:
            if signature and (wanted is None or wanted.passes(signature)):
                seconds = max(0, (end or now_us) - start) / US
                yield Failure(start, session, product, version, machine, signature, title, "hang", seconds, outcome)


def _grouped(failures: Iterable[Failure], asked: Asked, fleet: Fleet) -> dict[str, _Group]:
    """Return the groups with a failure in the span that passes all filters."""
    ever: dict[str, list[Failure]] = {}
    for failure in failures:
        ever.setdefault(failure.signature, []).append(failure)
    # The shelves have settled the product; which versions ever had it does not depend on the versions asked for.
    deeper = not is_plain(asked) or "version" in asked.filters
    groups: dict[str, _Group] = {}
    for signature, some in ever.items():
        some.sort(key=_time)
        inside = some[bisect_left(some, asked.span.start, key=_time) : bisect_left(some, asked.span.stop, key=_time)]
        if deeper:
            seen = [fleet.glance(failure.session) for failure in inside]
            inside = [one for one, head in zip(inside, seen, strict=True) if head is not None and passes(asked, head)]
        if inside:
            groups[signature] = _Group(some, inside)
    return groups


_time = attrgetter("t")


def _sizes(shelves: Shelves) -> dict[str, dict[str, int]]:
    """Return how many sessions each version of each product has, the oldest version first."""
    sizes: dict[str, dict[str, int]] = {}
    for (product, version), shelf in shelves.items():
        sizes.setdefault(product, {})[version] = len(shelf)
    return {
        product: {version: some[version] for version in reversed(newest_version(some))}
        for product, some in sizes.items()
    }


def _row(signature: str, group: _Group, sizes: Mapping[str, Mapping[str, int]], asked: Asked, url: str) -> Row:
    had = group.versions()
    versions = newest_version(had)
    last = group.ever[-1]
    return {
        "signature": signature,
        "title": last.title,
        "product": last.product,
        "count": len(group.inside),
        "sessions": len({failure.session for failure in group.inside}),
        "machines": len({failure.machine for failure in group.inside} - {""}),
        "first_version": versions[-1],
        "last_version": versions[0],
        "versions": len(versions),
        "first_seen_at": rfc3339(group.ever[0].t),
        "last_seen_at": rfc3339(last.t),
        "new": asked.span.start <= group.ever[0].t < asked.span.stop,
        "regressed": regressed(had, sizes[last.product], asked.span),
        "example_session": group.inside[-1].session,
        "web_url": url,
    }


def regressed(seen: Mapping[str, int], sizes: Mapping[str, int], span: Span) -> bool:
    """Return whether a failure came back in the span: first seen in a version newer than one without it.

    seen tells when each version first had it, sizes how many sessions each version has, the oldest first.
    """
    had = without = False
    for version in sizes:
        if version in seen:
            if without and span.start <= seen[version] < span.stop:
                return True
            had, without = True, False
        elif had and sizes[version] >= MIN_SESSIONS_WITHOUT:
            without = True
    return False
