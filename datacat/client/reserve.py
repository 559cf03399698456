"""Room put by for the last words of an app that has used up its memory. One for the process, owned by no thread.

It is address space to which nothing is ever written: it takes no memory, but counts where address space is limited
(RLIMIT_AS, a strict overcommit). There an app ends with MemoryError, and without this the exception could not be noted.
"""

import mmap
import sys

BYTES = 4 << 20
"""An arena of Python's allocator is 1 MiB; an exception's event and the modules that make it take less than 2 MiB."""

_kept: mmap.mmap | None = None


def take() -> None:
    """Put it by, unless it is or cannot be had."""
    global _kept
    if _kept is not None or sys.platform == "win32":
        return
    try:
        _kept = mmap.mmap(-1, BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError, MemoryError):  # then there is no less than before
        return


def give() -> None:
    """Give it back, so that the next allocations succeed; idempotent, and itself needs no memory."""
    global _kept
    kept, _kept = _kept, None
    if kept is not None:
        kept.close()
