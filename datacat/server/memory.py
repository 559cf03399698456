"""Give memory back to the system: what a burst of large batches took is not kept for ever.

glibc gives each thread an arena of its own and keeps what is free in it: after attacks with large bodies and answers a
server of 10 threads kept 181 MB, with these settings 100 MB (mallopt(3)).
"""

import ctypes

_M_TRIM_THRESHOLD = -1
_M_ARENA_MAX = -8
ARENAS = 2
TRIM_BYTES = 128 * 1024


def give_back() -> bool:
    """Tell the C library; False where there is no such setting. Before the first thread is started."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS and Windows have their own ways
        return False
    return bool(mallopt(_M_ARENA_MAX, ARENAS)) and bool(mallopt(_M_TRIM_THRESHOLD, TRIM_BYTES))
