"""What the client swallows, tests raise; sessions of a test leave nothing behind in the process."""

import pytest
from client_helpers import NO_DAEMON

import datacat
from datacat.client import guard, live


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    """Raise what the client would only count, and start a daemon that ends at once."""
    monkeypatch.setattr(guard, "strict", True)
    monkeypatch.setattr(guard, "faults", 0)
    monkeypatch.setenv("DATACAT_PYTHON", NO_DAEMON)
    yield
    for session in live.sessions():
        session.end()


@pytest.fixture
def session(tmp_path):
    """A session with its journal below tmp_path."""
    made = datacat.create_session(product="editor", version="1.2", state_dir=tmp_path)
    yield made
    made.end()
