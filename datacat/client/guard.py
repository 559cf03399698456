"""The client's promise to the app: a mistake of ours is counted, never raised. Tests set strict and see it."""

import os

strict = False
"""Raise again what would be swallowed; DATACAT_STRICT=1 does the same for a whole process."""
faults = 0
"""How many mistakes of ours were swallowed in this process."""


def swallowed(error: Exception) -> None:
    """Note a mistake of ours that the app must not see. Call it from `except Exception` only."""
    global faults
    faults += 1
    if strict or os.environ.get("DATACAT_STRICT") == "1":
        raise error
