"""The committed dashboards and rules, a server that they ask, and what a person would choose in them.

The server is the whole site on a real socket, over a store in memory, with a clock that stands still, so that answers
are the same in every run.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml
from fleet import seed
from storing import opened, put, sid

from datacat.host.usage import Usage
from datacat.server.audit import Audit
from datacat.server.config import Config, Live
from datacat.server.gate import gate
from datacat.server.httpd import Limits, Server
from datacat.server.keys import Ring
from datacat.server.leases import Leases
from datacat.server.listen import bind
from datacat.server.own import OwnStream
from datacat.server.pulse import STEP_S, Pulse
from datacat.server.rates import Rates
from datacat.server.service import site
from datacat.store.memory import MemoryStore
from datacat.worker import Pump
from grafana import infinity
from grafana.asking import Everything, Range, Value
from grafana.framing import Frame

FOLDER = Path(__file__).parents[2] / "packaging/grafana"
NOW_US = 1_800_000_000_000_000
"""2027-01-15T08:00:00Z."""
US = 1_000_000
HOUR_MS = 3600 * 1000
SHARED = "-- Dashboard --"
MAX_BYTES = 1_000_000
"""The plugin sends the whole answer on to the browser beside the frame."""
SCREEN_PX = 1600
ODD = ("Sales, EU", "a b", "c+d", 'say "hi, you"', "100% & more", "Zoë's", "x=1;y", "{curly}", "back\\slash")
"""Names of products that are hard to write in a query."""


@dataclass
class Place:
    """A server and what was made of its answers. get() is what the plugin asks with."""

    url: str
    store: MemoryStore
    sizes: dict[str, int] = field(default_factory=dict)
    _session: requests.Session = field(default_factory=requests.Session)

    def get(self, url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Ask and note how large the answer was, unpacked."""
        answer = self._session.get(url, headers=dict(headers), timeout=20)
        path = url.partition("?")[0].removeprefix(self.url)
        self.sizes[path] = max(self.sizes.get(path, 0), len(answer.content))
        return answer.status_code, answer.content

    def json(self, path: str) -> Any:
        """Return the JSON of an answer that must be 200."""
        status, body = self.get(self.url + path, {})
        assert status == 200, body
        return json.loads(body)

    def close(self) -> None:
        """Let the connection go."""
        self._session.close()


@contextlib.contextmanager
def serving(store: MemoryStore) -> Iterator[Place]:
    """Serve a store at NOW_US."""
    live = Live(Config(public_url="http://datacat:8080"))
    own = OwnStream(store, "b00t", lambda: NOW_US)
    doors = gate(live, Ring(None, lambda: NOW_US / US), Rates(lambda: NOW_US / US), lambda: NOW_US)
    app = site(live, own, Leases(), lambda: False, doors, Audit(None, lambda: NOW_US), _pulse(store))
    http = Server(bind("127.0.0.1", 0), app, Limits(threads=2))
    http.prepare()
    pump = Pump("http", http.serve, http.stop)
    pump.start()
    place = Place(f"http://127.0.0.1:{http.bind_addr[1]}", store)
    try:
        yield place
    finally:
        place.close()
        pump.stop()


def seeded(sessions: int = 200, long_events: int = 2000) -> MemoryStore:
    """Return a store with the made-up fleet."""
    store = MemoryStore()
    seed(store, NOW_US, sessions=sessions, long_events=long_events)
    return store


def with_odd_names(store: MemoryStore) -> MemoryStore:
    """Return the store with one more open session of each product of ODD; version and host have odd names as well."""
    for number, name in enumerate(ODD):
        begin = NOW_US - (number + 2) * 60 * US
        session = opened(begin, product=name, version=f"1.0 {name}", hostname=f"host {name}")
        put(store, sid(0xFFFF00 + number), session, received_us=begin)
    return store


def _pulse(store: MemoryStore) -> Pulse:
    """Return six hours of a server's life, made up: nothing of it depends on how fast this machine is."""
    now = [NOW_US - 6 * 3600 * US]
    used = [0.0]
    pulse = Pulse(
        store, lambda: now[0], lambda: Usage(used[0], 0.0, 88_000_000 + round(used[0]) * 20_000, 21, 64), lambda: 9
    )
    step = 0
    while now[0] < NOW_US:
        for route, count in (("/api/sessions/{id}/batches", 12), ("/", 1), ("/api/query/summary", step % 3)):
            for number in range(count):
                pulse.request(route, 200, 0.004 * (1 + number % 5) * (1 + step % 7 / 10))
        if step % 50 == 9:
            pulse.request("/api/sessions", 401, 0.001)
            pulse.request("/api/sessions/{id}/batches", 503, 0.001)
        used[0] += 0.2 + step % 5 / 10
        pulse.sample(now[0])
        if store.fleet.heard:
            pulse._now.ingested = {"event": 90 + step % 11, "metric": 40, "state": 12 + step % 4, "session": step % 2}
        now[0] += STEP_S * 6 * US
        step += 1
    now[0] = NOW_US
    pulse.sample(NOW_US)
    # Questions of the tests themselves are not counted: how long they take is no part of an answer.
    pulse.around = lambda app: app
    return pulse


def dashboards() -> dict[str, dict[str, Any]]:
    """Return the committed dashboards by uid."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((FOLDER / "dashboards").glob("*.json"))]
    return {one["uid"]: one for one in found}


def rules() -> list[dict[str, Any]]:
    """Return the committed alert rules."""
    told = yaml.safe_load((FOLDER / "provisioning/alerting/datacat.yaml").read_text(encoding="utf-8"))
    return [rule for group in told["groups"] for rule in group["rules"]]


def range_of(board: Mapping[str, Any], hours: int = 0) -> Range:
    """Return the range that a dashboard opens with, or the last so many hours."""
    hours = hours or int(board["time"]["from"].removeprefix("now-").removesuffix("h"))
    return Range(NOW_US // 1000 - hours * HOUR_MS, NOW_US // 1000)


_ROUND_MS = (
    (1500, 1000), (3500, 2000), (7500, 5000), (12_500, 10_000), (17_500, 15_000), (25_000, 20_000), (45_000, 30_000),
    (90_000, 60_000), (210_000, 120_000), (450_000, 300_000), (750_000, 600_000), (1_050_000, 900_000),
    (1_500_000, 1_200_000), (2_700_000, 1_800_000), (5_400_000, 3_600_000), (9_000_000, 7_200_000),
)  # fmt: skip


def interval_ms(span: Range, width: int) -> int:
    """Return what Grafana puts in for $__interval_ms: one point for each pixel of a panel's width, rounded as it does."""
    wanted = (span.stop_ms - span.start_ms) / (SCREEN_PX * width / 24)
    return next((rounded for limit, rounded in _ROUND_MS if wanted < limit), 10_800_000)


@dataclass
class Chosen:
    """What stands in a dashboard's variables: a default, unless it was chosen."""

    board: Mapping[str, Any]
    span: Range
    place: Place
    choice: Mapping[str, Value] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for variable in self.board["templating"]["list"]:
            self.values[variable["name"]] = self._value(variable)

    def _value(self, variable: Mapping[str, Any]) -> Value:
        name = variable["name"]
        if name in self.choice:
            chosen = self.choice[name]
            return chosen if isinstance(chosen, str) or variable.get("multi") else chosen[0]
        if variable.get("includeAll"):
            return Everything(variable["allValue"])
        match variable["type"]:
            case "query":
                first = self.options(variable)[0].value
                return [first] if variable["multi"] else first
            case "datasource":
                return "datacat"
        value: Value = variable["current"]["value"]
        return value

    def options(self, variable: Mapping[str, Any]) -> list[infinity.Option]:
        """Return what a query variable offers, those before it being chosen. Raises: InfinityError."""
        return infinity.options(variable["query"], self.values, self.span, self.place.url, self.place.get)

    def ask(self, target: Mapping[str, Any], width: int = 24) -> Frame:
        """Return the frame of a target in a panel of this width. Raises: InfinityError."""
        variables = {**self.values, "__interval_ms": str(interval_ms(self.span, width))}
        return infinity.ask(target, variables, self.span, self.place.url, self.place.get)

    def panels(self) -> Iterator[tuple[Mapping[str, Any], Frame]]:
        """Yield each panel with its frame; those that show another panel's row get that. Raises: InfinityError."""
        frames: dict[int, Frame] = {}
        for panel in self.board["panels"]:
            (target,) = panel["targets"]
            shared = target.get("datasource", {}).get("uid") == SHARED
            frame = frames[target["panelId"]] if shared else self.ask(target, panel["gridPos"]["w"])
            frames[panel["id"]] = frame
            yield panel, frame
