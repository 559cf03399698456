"""Memory that was freed and that the C library keeps: glibc gives it back to the system only when it is told to."""

import sys


def give_back() -> bool:
    """Give free memory back to the system, for after a phase that needed more than what follows; True: some was.

    Only glibc needs it (malloc_trim(3)); elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return False
    import ctypes  # late: it costs a megabyte, and small programs never come here

    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return False
    return bool(trim(0))
