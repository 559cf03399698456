"""A server without sockets: the WSGI site on a store in memory, with a clock that the test sets."""

import pytest
from wsgi import Client

from datacat.server.config import Config, Live
from datacat.server.leases import Leases
from datacat.server.own import OwnStream
from datacat.server.service import site
from datacat.store.memory import MemoryStore

NOW_US = 1_800_000_000_000_000
US = 1_000_000


class Server(Client):
    """A client of a whole server, and the server's parts."""

    def __init__(self, config=None, rights=None):
        self.now_us = NOW_US
        self.store = MemoryStore()
        self.own = OwnStream(self.store, "b00t", lambda: self.now_us)
        self.leases = Leases()
        self.config = config or Config()
        self.draining = False
        super().__init__(site(Live(self.config), self.own, self.leases, lambda: self.draining, rights))

    def session(self, **more):
        """Create a session and return its id."""
        answer = self.post("/api/sessions", json={"product": "editor", "version": "1.2", **more})
        assert answer.status == 201, answer.body
        return answer.json["session_id"]

    def get_session(self, session_id):
        return self.get(f"/api/sessions/{session_id}").json


@pytest.fixture
def make_server():
    return Server


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def admin():
    """A server whose clients hold an admin key."""
    return Server(rights=lambda _environ: frozenset({"read", "ingest", "admin"}))
