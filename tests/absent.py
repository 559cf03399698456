"""What a test needs and this machine does not have: no capability where scripts/test could have put it there."""

import os
import shutil

import pytest


def skip(what):
    """Skip, and say why; root on Debian can install it, so there it is a failure in CI (tests/conftest.py)."""
    can_install = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get")
    pytest.skip(what if can_install else f"capability: {what}")
