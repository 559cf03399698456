"""A server process with the made-up fleet in its store, and the addresses of its pages."""

import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import requests
from browser import command
from fleet import seed
from helpers import eventually

from datacat.store import open_store

AXE = Path(__file__).parent / "web/node_modules/axe-core/axe.min.js"


def lacks():
    """Return what this machine lacks for tests in a browser, or nothing."""
    if command() is None:
        return "no Chromium on this machine"
    return "" if AXE.exists() else "axe-core is not there and there is no npm to fetch it"


class Place:
    """A running server; keys: with a file of keys. Use as a context."""

    def __init__(self, folder, fill=None):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.fleet = None
        self._fill = fill
        self.process = None
        self.port = 0

    def seeded(self, **how):
        """Fill the store before the start."""
        store = open_store(f"semidbm:{self.folder / 'store'}")
        self.fleet = seed(store, time.time_ns() // 1000, **how)
        if self._fill:
            self._fill(store)
        store.close()
        return self

    def __enter__(self):
        port_file = self.folder / "port"
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "datacat.cli.server", "--port", "0", "--port-file", port_file, "--data-dir",
                 self.folder],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        eventually(lambda: port_file.exists() or self.process.poll() is not None, 30)
        assert self.process.poll() is None, self.log.read_text()
        self.port = int(port_file.read_text())
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def get(self, path, **more):
        answer = requests.get(self.url + path, timeout=30, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path, told):
        answer = requests.post(self.url + path, json=told, timeout=30)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def pages(self):
        """Return the path of every page by its name, each with something to see."""
        crash, hang = (
            self.get(f"/api/query/{what}?from=-30d&sort=-count&limit=1")["rows"][0]["signature"]
            for what in ("crashes", "hangs/groups")
        )
        product = quote(self.get("/api/query/values/product?from=0&limit=1")["rows"][0]["value"])
        return {
            "overview": "/",
            "sessions": "/sessions",
            "session": f"/sessions/{self.fleet.named.get('long') or self.fleet.first('signal')}",
            "session-hung": f"/sessions/{self.fleet.first('hung')}",
            "session-ended": f"/sessions/{self.fleet.first('clean')}",
            "crashes": "/crashes",
            "crash-group": f"/crashes/{crash}",
            "hangs": "/hangs",
            "hang-group": f"/hangs/{hang}",
            "releases": f"/releases?product={product}&compare=2.4.0&compare=2.3.1",
            "machines": "/machines",
            "service": "/service",
        }
