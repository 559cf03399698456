"""When a silent app is looked into, and the lines of ours in its stacks file. Pure; shared by client and daemon.

An app that has not beaten for a while is sampled before it is called hung: once when it is slow, then three times, the
last one at its timeout. So the event of a hang has all that it needs at the moment when it is written.

The stacks file holds texts of faulthandler, and between them:

    # signal 23 fd 1000              first line: this signal makes the main thread write its stack to that descriptor
    # thread 0x00007f01 MainThread   the name of a thread, by the id that faulthandler writes
    # at 1700000000000000            Unix us; what follows was written by a thread of ours, with all threads
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

SLOW_SETTING = "slow_seconds"
SLOW_S = 5.0
"""Silence after which an app is slow; 0 is never."""
STACKS_SETTING = "hang_stacks"
STACKS_WORDS = ("auto", "thread", "off")
"""auto: by the app's own thread, else by SIGURG; thread: only by that; or the name of another signal of SIGNALS."""
SIGNALS = ("SIGURG", "SIGWINCH")
"""Signals whose default action is to be ignored (signal(7)): a process without our handler survives them."""

MAX_STACKS_BYTES = 1_000_000
"""The daemon empties the file when it has read it; without a daemon it ends here."""
SAMPLE_EVERY_S = 1.0
SAMPLES = 3
LEAD_S = 0.1
"""So much before a sample is due the stacks are asked for: a signal is answered in 2 to 14 ms (measured)."""
BUSY_LEAD = 20
"""For short timeouts the lead is this part of the timeout."""

SIGNAL_LINE = "# signal "
THREAD_LINE = "# thread "
AT_LINE = "# at "


class Handle(NamedTuple):
    """The signal that makes an app write its stacks, and the descriptor that they go to."""

    signal: int
    fd: int


def points_s(timeout_s: float, slow_s: float) -> tuple[float, ...]:
    """Return after how much silence an app is sampled, ascending; the last one is the timeout.

    slow_s counts when it comes before the others; 0 is no such level.
    """
    every_s = min(SAMPLE_EVERY_S, timeout_s / (SAMPLES + 1))
    last = tuple(timeout_s - every_s * left for left in range(SAMPLES - 1, -1, -1))
    return (slow_s, *last) if 0 < slow_s < last[0] else last


def lead_s(timeout_s: float) -> float:
    """Return how long before a sample the stacks are asked for."""
    return min(LEAD_S, timeout_s / BUSY_LEAD)


def slow_s(settings: Mapping[str, Any], environ: Mapping[str, str]) -> float:
    """Return the slow level that a session asks for, else the environment, else the default."""
    for value in (settings.get(SLOW_SETTING), environ.get("DATACAT_SLOW_SECONDS")):
        try:
            seconds = float(value)  # type: ignore[arg-type]  # tried, not known
        except (TypeError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return SLOW_S


def stacks_way(settings: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """Return how stacks are taken: a word of STACKS_WORDS or the name of a signal; auto for what is none."""
    for value in (settings.get(STACKS_SETTING), environ.get("DATACAT_HANG_STACKS")):
        word = str(value).strip()
        if word.lower() in STACKS_WORDS:
            return word.lower()
        if word.upper() in SIGNALS:
            return word.upper()
    return "auto"


def handle_line(handle: Handle) -> str:
    """Return the first line of a stacks file."""
    return f"{SIGNAL_LINE}{handle.signal} fd {handle.fd}\n"


def handle_of(text: str) -> Handle | None:
    """Return what the first line of a stacks file names; None when it names nothing, so that nobody is signalled."""
    first = text.split("\n", 1)[0]
    if not first.startswith(SIGNAL_LINE):
        return None
    number, _, fd = first.removeprefix(SIGNAL_LINE).partition(" fd ")
    if not (number.isascii() and number.isdigit() and fd.isascii() and fd.isdigit()):
        return None
    return Handle(int(number), int(fd))


def thread_line(ident: int, name: str) -> str:
    """Return the line that names a thread; the id as faulthandler writes it (sizeof(long) * 2 digits, or fewer)."""
    return f"{THREAD_LINE}0x{ident:x} {' '.join(name.split())[:100]}\n"


def thread_id(text: str) -> str:
    """Return a thread's id in the form in which ids are compared: hexadecimal, no 0x, no leading zeros."""
    return text.removeprefix("0x").lstrip("0").lower() or "0"
