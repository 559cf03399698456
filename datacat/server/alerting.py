"""The job of alerts: ask the query layer, decide, send what is due, remember it all in a file; and its endpoints."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from datacat.errors import DatacatError, StoreError
from datacat.server import alerts, webhooks
from datacat.server.alerts import Sending, State
from datacat.server.audit import Audit
from datacat.server.config import Live
from datacat.server.problems import Refusal
from datacat.server.query import asked
from datacat.server.query.ground import Ground
from datacat.server.query.table import TABLE
from datacat.server.router import Answer, Request, Route, as_json
from datacat.server.rules import Alerting, Rule, Webhook
from datacat.server.webhooks import Sent
from datacat.store import durable
from datacat.wire.times import rfc3339

_log = logging.getLogger(__name__)

FILE = "alerts.json"
INTERVAL_S = 30.0
SENDING_S = 20.0
"""So long one step sends; the watchdog must see the job come back."""
_HUNG_WINDOW_US = 60 * alerts.US

Send = Callable[[Webhook, alerts.Message], Sent]


class Memory(msgspec.Struct):
    """What the file holds: the state of all rules, and what still has to be sent."""

    version: int = 1
    state: State = msgspec.field(default_factory=State)
    waiting: list[Sending] = []


class Alerts:
    """Owns state and file. step() belongs to the job's thread; the endpoints may be called from any.

    is_sealed: this process has no way out, which is said once instead of with every message.
    """

    def __init__(
        self,
        ground: Ground,
        live: Live,
        audit: Audit,
        folder: Path | None,
        *,
        is_sealed: bool = False,
        send: Send = webhooks.send,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ground = ground
        self._live = live
        self._audit = audit
        self._path = folder / FILE if folder else None
        self._folder = folder
        self._is_sealed = is_sealed
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._complaints: dict[str, str] = {}
        self.memory = self._read()

    def routes(self) -> list[Route]:
        """Return the table of routes."""
        return [
            Route("GET", "/api/alerts", self.rules, "read"),
            Route("POST", "/api/alerts/test", self.test, "admin", ("name",)),
        ]

    def step(self, now_us: int) -> bool:
        """Judge every rule and send what is due."""
        alerting = self._live.now.alerting
        if not alerting.alerts and not self.memory.waiting and not self.memory.state.active:
            return False
        before = _shape(self.memory)
        fired = {}
        for rule in alerting.alerts:
            try:
                fired[rule.name] = alerts.judge(rule, self._rows(rule, now_us))
            except DatacatError as error:
                self._complain(rule.name, f"the alert {rule.name} could not be judged: {error}")
        state, told = alerts.step(self.memory.state, alerting.alerts, fired, now_us)
        for _, message in told:
            _log.warning("alert %s is %s: %s; %s", message.alert, message.status, message.title, message.text)
        waiting = [*self.memory.waiting, *alerts.sendings(told, now_us)][-alerts.MAX_WAITING :]
        self.memory = Memory(1, state, waiting)
        self._keep(before)  # what is to be said is on disk before it is said
        before = _shape(self.memory)
        self.memory = Memory(1, state, self._send_due(alerting, waiting, now_us))
        self._keep(before)
        return False

    def rules(self, request: Request) -> Answer:
        """GET /api/alerts: rules, webhooks without their addresses, and what fires."""
        return as_json(self.told(request.principal.products))

    def told(self, products: tuple[str, ...]) -> dict[str, Any]:
        """Return what GET /api/alerts tells who may see these products; (): all."""
        alerting, state = self._live.now.alerting, self.memory.state
        rows = [
            {
                **msgspec.to_builtins(rule),
                "firing": []
                if products and rule.product not in products
                else [
                    {"instance": name, "title": one.title, "since": rfc3339(one.since)}
                    for name, one in state.active.get(rule.name, {}).items()
                ],
            }
            for rule in alerting.alerts
            if not products or not rule.product or rule.product in products
        ]
        hooks = [{"name": hook.name, "format": hook.format} for hook in alerting.webhooks]
        return {"alerts": rows, "webhooks": hooks, "waiting": len(self.memory.waiting)}

    def test(self, request: Request) -> Answer:
        """POST /api/alerts/test: send a test message to the webhooks, of one alert or all, and tell what came back."""
        alerting, name = self._live.now.alerting, request.one("name")
        by = request.principal
        try:
            rows = try_out(alerting, name, self._now_us(), self._send)
        except KeyError as error:
            raise Refusal(404, f"there is no alert or webhook {name[:80]!r}") from error
        self._audit.write("alerts_tested", name, who=by.who, key_id=by.key_id, address=by.address)
        return as_json({"rows": rows})

    def _now_us(self) -> int:
        return time.time_ns() // 1000

    def _rows(self, rule: Rule, now_us: int) -> list[Mapping[str, Any]]:
        window_us = round(rule.window_h * 3600 * alerts.US)
        match rule.rule:
            case "new_crash_group" | "regression":
                return self._ask("crashes", rule, now_us, window_us, limit="1000")
            case "crash_free_rate":
                return self._ask("summary", rule, now_us, window_us, by="product,version")
            case "hung_now":
                return self._ask("summary", rule, now_us, _HUNG_WINDOW_US, by="product")
            case "no_data":
                heard: dict[str, int] = {}
                for (product, _), seen in list(self._ground.store.fleet.heard.items()):
                    heard[product] = max(seen, heard.get(product, 0))
                return [
                    {"product": product, "ingest_age_seconds": max(0, now_us - seen) / alerts.US}
                    for product, seen in heard.items()
                    if seen
                ]
            case "store":
                return [{"problem": self._trouble(rule)}]

    def _ask(self, path: str, rule: Rule, now_us: int, window_us: int, **more: str) -> list[Mapping[str, Any]]:
        endpoint = next(one for one in TABLE if one.path == path)
        query = {"from": [rfc3339(max(0, now_us - window_us))], "to": [rfc3339(now_us)]}
        query |= {name: [value] for name, value in more.items()}
        products = frozenset({rule.product} if rule.product else ())
        return list(endpoint.answer(asked.read(endpoint, query, now_us, products), self._ground).rows)

    def _trouble(self, rule: Rule) -> str:
        try:
            self._ground.store.check()
        except StoreError as error:
            return f"the store takes no writes: {error.message}"
        if self._folder is not None:
            try:
                free_mb = shutil.disk_usage(self._folder).free / 1e6
            except OSError as error:
                return f"its disk cannot be looked at: {error.strerror}"
            if free_mb < rule.free_mb:
                return f"its disk has {free_mb:.0f} MB free, the limit is {rule.free_mb:g} MB"
        return ""

    def _send_due(self, alerting: Alerting, waiting: list[Sending], now_us: int) -> list[Sending]:
        """Return what still waits after sending what is due, for SENDING_S at most."""
        if self._is_sealed and waiting:
            self._complain("sealed", "alerts are not sent: this service has no outgoing traffic (the sealed unit)")
            return []
        left, end, tired = [], self._clock() + SENDING_S, set[str]()
        for sending in waiting:
            hook = alerting.hook(sending.webhook)
            if hook is None:
                _log.warning("a message for the webhook %s is dropped: there is none any more", sending.webhook)
                continue
            if sending.due > now_us or hook.name in tired or self._clock() > end:
                left.append(sending)
                continue
            sent = self._send(hook, sending.message)
            if sent.ok:
                self._complaints.pop(hook.name, None)
                continue
            tired.add(hook.name)  # the order of messages is kept, and nobody is asked twice in vain
            later = alerts.again(sending, now_us, sent.retry_after_s) if sent.retry else None
            if later is None:
                _log.error("the webhook %s did not take a message, which is dropped: %s", hook.name, sent.said)
                continue
            self._complain(hook.name, f"the webhook {hook.name} does not take messages: {sent.said}")
            left.append(later)
        return left

    def _complain(self, about: str, text: str) -> None:
        if self._complaints.get(about) != text:
            self._complaints[about] = text
            _log.error("%s", text)

    def _read(self) -> Memory:
        if self._path is None:
            return Memory()
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Memory)
        except FileNotFoundError:
            return Memory()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.error("what alerts remembered in %s cannot be read, they begin anew: %s", self._path, error)
            return Memory()

    def _keep(self, before: object) -> None:
        """Write the file when what it holds is not as before."""
        if self._path is None or _shape(self.memory) == before:
            return
        try:
            durable.create(self._path, msgspec.json.encode(self.memory))
        except OSError as error:
            self._complain("file", f"cannot keep what alerts remember in {self._path}: {error.strerror}")


def _shape(memory: Memory) -> object:
    """Return what is worth a write: not when something was last seen, which changes with every step."""
    firing = {(rule, name): one.since for rule, found in memory.state.active.items() for name, one in found.items()}
    return firing, memory.state.known, memory.waiting


def try_out(alerting: Alerting, name: str, now_us: int, send: Send = webhooks.send) -> list[dict[str, Any]]:
    """Send a test message and return what came back.

    name is that of an alert, whose webhooks are meant, or of a webhook; empty: all webhooks.
    Raises: KeyError when there is none of this name.
    """
    rule = next((one for one in alerting.alerts if one.name == name), None)
    names = rule.webhooks if rule else tuple(hook.name for hook in alerting.webhooks if name in ("", hook.name))
    if name and not names:
        raise KeyError(name)
    rows = []
    for one in names:
        hook = alerting.hook(one)
        if hook is not None:
            message = alerts.test_message(name or hook.name, rule.rule if rule else "test", now_us)
            sent = send(hook, message)
            rows.append({"webhook": hook.name, "format": hook.format, "ok": sent.ok, "said": sent.said})
    return rows
