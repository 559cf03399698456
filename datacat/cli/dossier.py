"""What an event knows of a hung or crashed app, to read: the verdict, and threads that stand alike as one. Pure."""

from collections.abc import Iterable
from typing import Any

from datacat.cli import text

_FRAMES = 12
_GROUPS = 8
_WIDE = 160


def lines(data: dict[str, Any]) -> list[str]:
    """Return the lines for the data of an event; empty when it has no threads. Anybody may have written the data."""
    threads = data.get("threads")
    if not isinstance(threads, list) or not all(isinstance(each, dict) for each in threads):
        return []
    return [*_facts(data), *_stacks(threads, data.get("threads_cut"))]


def _facts(data: dict[str, Any]) -> Iterable[str]:
    share: Any = data.get("main_cpu_share", data.get("cpu_share"))
    samples = data.get("samples")
    facts = {
        "state": data.get("state"),
        "waits in": data.get("wait_channel"),
        "CPU": f"{100 * share:.0f} %" if type(share) in (int, float) else None,
        "threads": data.get("thread_count"),
        "samples": len(samples) if isinstance(samples, list) else None,
        "stacks by": data.get("stacks_by"),
    }
    told = ", ".join(f"{name} {text.compact(value)}" for name, value in facts.items() if value not in (None, ""))
    if "verdict" in data and told:
        yield text.one_line(told, _WIDE)


def _stacks(threads: list[dict[str, Any]], cut: Any) -> Iterable[str]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for thread in threads:
        mark = " (current)" if thread.get("current") is True else ""
        name = str(thread.get("name") or f"thread {thread.get('id')}")
        groups.setdefault(tuple(_frames(thread)), []).append(name + mark)
    for frames, names in list(groups.items())[:_GROUPS]:
        many = f"{len(names)} threads alike: " if len(names) > 1 else ""
        yield text.one_line(f"{many}{', '.join(names)}:", _WIDE)
        if len(frames) > _FRAMES:
            yield f"  ... {len(frames) - _FRAMES} calls before; --json shows all"
        yield from (f"  {frame}" for frame in frames[-_FRAMES:] or ("(no Python frame)",))
    left = sum(len(names) for names in list(groups.values())[_GROUPS:]) + (cut if type(cut) is int else 0)
    if left:
        yield f"... and {left} more threads"


def _frames(thread: dict[str, Any]) -> Iterable[str]:
    frames = thread.get("frames")
    for frame in frames if isinstance(frames, list) else ():
        if isinstance(frame, dict):
            line = frame.get("line")
            where = f"{frame.get('file')}:{line if line is not None else '?'}"
            yield text.one_line(f"{where} in {frame.get('function')}", _WIDE)
