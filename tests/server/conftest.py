"""A server without sockets: the WSGI site on a store in memory, with a clock that the test sets."""

import pytest
from wsgi import Client

from datacat.server.audit import Audit
from datacat.server.config import Config, Live
from datacat.server.gate import gate
from datacat.server.keys import KeyFile, Ring, make
from datacat.server.leases import Leases
from datacat.server.own import OwnStream
from datacat.server.pulse import Pulse
from datacat.server.rates import Rates
from datacat.server.service import site
from datacat.store.memory import MemoryStore

NOW_US = 1_800_000_000_000_000
US = 1_000_000


class Server(Client):
    """A client of a whole server, and the server's parts; folder is where it keeps keys, if anywhere."""

    def __init__(self, config=None, folder=None):
        self.now_us = NOW_US
        self.store = MemoryStore()
        self.own = OwnStream(self.store, "b00t", lambda: self.now_us)
        self.leases = Leases()
        self.config = config or Config()
        self.draining = False
        self.folder = folder
        self.live = Live(self.config)
        self.audit = Audit(folder, lambda: self.now_us)
        self.pulse = Pulse(self.store, lambda: self.now_us, lambda: None, lambda: 0)
        self.ring = Ring(KeyFile(folder) if folder else None, lambda: self.now_us / US)
        self.gate = gate(self.live, self.ring, Rates(lambda: self.now_us / US), lambda: self.now_us)
        super().__init__(
            site(self.live, self.own, self.leases, lambda: self.draining, self.gate, self.audit, self.pulse)
        )

    def key(self, role, *products, expires_at=0):
        """Make a key and return its text."""
        key, text = make(f"{role}{len(self.ring.keys)}", role, products, expires_at, self.now_us)
        self.ring.file.add(key)
        self.ring.reload()
        return text

    def with_key(self, text):
        """Return a client that brings this key."""
        return Client(self.app, headers={"Authorization": f"Bearer {text}"})

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
def admin(tmp_path):
    """A server, and a client of it that holds an admin key."""
    server = Server(folder=tmp_path)
    server.headers["Authorization"] = f"Bearer {server.key('admin')}"
    return server
