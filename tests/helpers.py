"""Small things that tests of several rooms share."""

import threading
import time


def eventually(check, timeout_s=10.0, every_s=0.01):
    """Return the first true value of check(), asked again and again; fail when there is none in time."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"it did not come true within {timeout_s} s; last answer: {value!r}"
        pause.wait(every_s)
