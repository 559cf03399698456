"""Suspect keys: what sessions of a crash or hang group have in common more often than sessions that went well."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from datacat.errors import Deleted, NotFound
from datacat.server.query.asked import Asked
from datacat.server.query.cohorts import glances_in, has_signature, of_shelf
from datacat.server.query.ground import Ground
from datacat.server.query.ordering import ordered
from datacat.server.query.shape import Column, Result, Row
from datacat.server.query.state import flatten, text_of
from datacat.store import Head
from datacat.store.shelf import machine_of

GROUP_SESSIONS = 200
OTHER_SESSIONS = 400
BUDGET_S = 1.5
"""So many states are read, for so long; more sessions are sampled, evenly over the span."""
MAX_PATHS = 300
MAX_VALUE_CHARS = 100

COLUMNS = (
    Column("kind", "text", "state, version, machine, hostname, environment or platform"),
    Column("key", "text", "the path in the state, or the kind"),
    Column("value", "text", "the value that they have"),
    Column("support", "integer", "sessions of the group that have it"),
    Column("group_share", "number", "part of the group that has it"),
    Column("other_share", "number", "part of the sessions without a failure that has it", optional=True),
    Column("lift", "number", "how much more often the group has it than all that were looked at"),
)

_Feature = tuple[str, str, str]


def suspects(asked: Asked, ground: Ground) -> Result:
    """Answer /api/query/suspects: a row for each key and value that the group has more often than all have."""
    fleet = ground.store.fleet
    everybody = replace(asked, values={**asked.values, "signature": None})
    with fleet.reading() as shelves:
        mine = {key: shelf for key, shelf in shelves.items() if of_shelf(asked, *key)}
        heads = list(glances_in(everybody, fleet, mine, asked.span))
    group = [head for head in heads if has_signature(head, asked["signature"])]
    products = {head.product for head in group}
    others = [h for h in heads if h.product in products and h.status != "crashed" and not h.hang_count]
    found = [_sample(some, count) for some, count in ((group, GROUP_SESSIONS), (others, OTHER_SESSIONS))]
    deadline = time.monotonic() + BUDGET_S
    # One of each in turn, so that running out of time leaves a fair part of both.
    counts: tuple[dict[_Feature, int], dict[_Feature, int]] = ({}, {})
    looked = [0, 0]
    for index in range(max(map(len, found), default=0)):
        if index and time.monotonic() > deadline:
            break
        for which in (0, 1):
            if index < len(found[which]) and (features := _features(found[which][index], ground)) is not None:
                looked[which] += 1
                for feature in features:
                    counts[which][feature] = counts[which].get(feature, 0) + 1
    rows = _rows(counts[0], counts[1], looked, asked["min_support"])
    rows = ordered(rows, COLUMNS, "-support", ("kind", "key", "value"))
    rows = ordered(rows, COLUMNS, "-lift")[: asked["limit"]]
    sampled = looked != [len(group), len(others)]
    meta = {"sampled": sampled, "group_sessions": looked[0], "other_sessions": looked[1], "of_group": len(group)}
    return Result(COLUMNS, rows, meta=meta)


def _rows(
    in_group: dict[_Feature, int], in_others: dict[_Feature, int], looked: Sequence[int], least: int
) -> Iterable[Row]:
    group, others = looked
    for (kind, key, value), support in in_group.items():
        if support < least:
            continue
        other = in_others.get((kind, key, value), 0)
        lift = (support / group) / ((support + other) / (group + others))
        if lift <= 1:
            continue
        yield {
            "kind": kind,
            "key": key,
            "value": value,
            "support": support,
            "group_share": support / group,
            "other_share": other / others if others else None,
            "lift": lift,
        }


def _sample(heads: list[Head], count: int) -> list[Head]:
    """Return at most so many of the heads, evenly spread over when they began."""
    if len(heads) <= count:
        return heads
    heads = sorted(heads, key=lambda head: (head.created_at, head.id))
    return [heads[number * len(heads) // count] for number in range(count)]


def _features(head: Head, ground: Ground) -> set[_Feature] | None:
    """Return what a session has, each once; None when it was deleted meanwhile."""
    try:
        state = ground.store.state(head.id)
    except (NotFound, Deleted):
        return None
    known = {
        "version": head.version,
        "machine": machine_of(head),
        "hostname": head.hostname,
        "environment": head.environment,
        "platform": head.platform,
    }
    features = {(kind, kind, value) for kind, value in known.items() if value}
    for path, value in islice(flatten(state), MAX_PATHS):
        if path not in ("", "product", "version") and len(text := text_of(value)) <= MAX_VALUE_CHARS:
            features.add(("state", path, text))
    return features
