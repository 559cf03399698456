"""merge() and diff() of states: RFC 7396 JSON Merge Patch, one law, used by daemon and server.

Law: merge(old, diff(old, new)) == new, with True, 1 and 1.0 distinct (Python calls them equal, JSON does not). A state
is a JSON object without null members; arrays may hold null and are replaced whole. No function changes its arguments;
results may share unchanged parts with them.
"""

from typing import Any

from datacat.errors import WireError
from datacat.wire.records import Patch, State


def merge(target: Any, patch: Any) -> Any:
    """Return target with patch applied (RFC 7396, section 2). A target that is no object counts as an empty one."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def diff(old: State, new: State) -> Patch:
    """Return the smallest merge patch that turns old into new.

    Raises: WireError when new has a null member, which no merge patch can produce.
    """
    patch: Patch = {name: None for name in old if name not in new}
    for name, value in new.items():
        if value is None:
            raise WireError(f"a state has no null members, {name!r} is null", pointer=f"/{name}")
        before = old.get(name)
        if isinstance(value, dict):
            # An object that was no object before is built from nothing, so that its null members are found too.
            inner = diff(before if isinstance(before, dict) else {}, value)
            if inner or not isinstance(before, dict):
                patch[name] = inner
        elif not same(before, value):
            patch[name] = value
    return patch


def effective(state: State, patch: Patch) -> Patch:
    """Return the part of patch that changes state; empty when it changes nothing."""
    changes: Patch = {}
    for name, value in patch.items():
        before = state.get(name)
        if value is None:
            if name in state:
                changes[name] = None
        elif isinstance(value, dict) and isinstance(before, dict):
            inner = effective(before, value)
            if inner:
                changes[name] = inner
        elif isinstance(value, dict) or not same(before, value):
            changes[name] = value
    return changes


def compose(first: Patch, second: Patch) -> Patch:
    """Return one patch that does what first and then second do: merge(merge(s, first), second) for every state s.

    Where second turns an object into something else and back, an intermediate step would be lost; RFC 7396 cannot say
    "replace this object", so such a pair has no composition and WireError is raised: keep the two apart.
    """
    composed = dict(first)
    for name, value in second.items():
        if isinstance(value, dict) and name in composed:
            before = composed[name]
            if not isinstance(before, dict):
                raise WireError(f"{name!r} is replaced and then patched", pointer=f"/{name}")
            composed[name] = compose(before, value)
        else:
            composed[name] = value
    return composed


def same(a: Any, b: Any) -> bool:
    """Return whether two JSON values are the same value of the same JSON type; 1 and 1.0 and True are three values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[name]) for name, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
