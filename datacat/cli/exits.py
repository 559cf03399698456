"""Exit codes of the commands; those above 63 are the words of BSD's sysexits.h, those above 125 of the shell."""

OK = 0
FAILED = 1
"""Not found, or it did not work."""
USAGE = 2
UNAVAILABLE = 69
"""EX_UNAVAILABLE: the server does not answer."""
INTERNAL = 70
"""EX_SOFTWARE: an error of datacat itself."""
NOT_EXECUTABLE = 126
NOT_FOUND = 127
SIGNALLED = 128
"""Plus the number of the signal."""
INTERRUPTED = SIGNALLED + 2
PIPE_CLOSED = SIGNALLED + 13
