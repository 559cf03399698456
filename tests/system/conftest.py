"""Fixtures of the system tests."""

import pytest
from system.box import Box


@pytest.fixture
def bare_box(tmp_path):
    """Yield a box whose server is not started."""
    box = Box(tmp_path)
    yield box
    box.close()


@pytest.fixture
def box(bare_box):
    """Yield a box with a running server."""
    return bare_box.start_server()
