"""What the local endpoints do. Owned by the main thread, which answers the intake's threads through their queues."""

import os
import queue
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from datacat import host
from datacat.daemon import asks
from datacat.daemon.served import Served
from datacat.daemon.spool import size_bytes
from datacat.errors import DatacatError, HostError, NotFound, ProcessGone, WireError
from datacat.host import oom
from datacat.wire import ids
from datacat.wire.layout import Beat, Meta
from datacat.wire.lines import encode
from datacat.wire.records import Close

Answer = dict[str, Any] | DatacatError
"""What an endpoint says, or why it cannot."""
OK: dict[str, Any] = {"status": "ok"}


class Ask(NamedTuple):
    """One request: the endpoint's name, the members of its body or query, and where the answer goes."""

    name: str
    members: dict[str, Any]
    reply: "queue.SimpleQueue[Answer]"


class Pending(NamedTuple):
    """An answer that waits for the server."""

    session_id: str
    until_s: float
    reply: "queue.SimpleQueue[Answer]"


class Desk:
    """Answer asks. register makes and adds a session, hurry ships one now, health says how the daemon is."""

    def __init__(
        self,
        served: dict[str, Served],
        register: Callable[[Meta], Served],
        hurry: Callable[[Served], None],
        health: Callable[[], dict[str, Any]],
    ) -> None:
        self._served = served
        self._register = register
        self._hurry = hurry
        self._health = health
        self._pending: list[Pending] = []
        self._actions: dict[str, Callable[[dict[str, Any], Ask], Answer | None]] = {
            "register": self._on_register,
            "state": self._on_state,
            "event": self._on_event,
            "metric": self._on_metric,
            "heartbeat": self._on_heartbeat,
            "pause_heartbeat": self._on_pause,
            "resume_heartbeat": self._on_resume,
            "end": self._on_end,
            "health": lambda _members, _ask: self._health(),
            "where": self._on_where,
            "list": lambda _members, _ask: {"folders": [str(served.folder) for served in served.values()]},
        }

    def answer(self, ask: Ask) -> None:
        """Do what is asked and answer, now or when the server has it."""
        try:
            answer = self._actions[ask.name](ask.members, ask)
        except DatacatError as error:
            answer = error
        if answer is not None:
            ask.reply.put(answer)

    def settle(self, now_s: float) -> None:
        """Answer those that waited long enough, or whose session is shipped."""
        waiting = []
        for one in self._pending:
            served = self._served.get(one.session_id)
            if served is None or served.shipped:
                one.reply.put(OK)
            elif now_s >= one.until_s:
                one.reply.put({**OK, "flushed": False})
            else:
                waiting.append(one)
        self._pending = waiting

    def due_s(self) -> float | None:
        """Return when settle() has something to do at the latest; None when nobody waits."""
        return min((one.until_s for one in self._pending), default=None)

    def _find(self, members: dict[str, Any]) -> Served:
        session_id = asks.session_id(members)
        served = self._served.get(session_id)
        if served is None:
            raise NotFound(session_id)
        return served

    def _on_register(self, members: dict[str, Any], _ask: Ask) -> Answer:
        order = asks.register(members)
        if order.id is not None and order.id in self._served:
            return {"session_id": order.id}
        now_us = time.time_ns() // 1000
        start = 0
        if order.parent_pid:
            try:
                start = host.process_start(order.parent_pid)
            except ProcessGone as error:
                raise WireError(f"there is no process {order.parent_pid}", pointer="/parent_pid") from error
            except HostError:
                start = 0
        stream = os.urandom(ids.STREAM_ID_BYTES).hex()
        oom_counter = oom.counter_of(order.parent_pid) if start else None
        meta = Meta(
            order.id or ids.uuid7(now_us // 1000, os.urandom(10)),
            order.product,
            order.version,
            stream,
            now_us,
            order.parent_pid if start else 0,
            start,
            pid_namespace=host.pid_namespace(),
            boot_id=host.boot_id(),
            machine_id=host.machine_id(),
            hostname=order.hostname or host.hostname(),
            environment=order.environment,
            platform=host.platform(),
            source="http",
            oom_counter=str(oom_counter or ""),
            oom_kills=oom.kills(oom_counter),
        )
        self._register(meta)
        return {"session_id": meta.id}

    def _on_state(self, members: dict[str, Any], _ask: Ask) -> Answer:
        return self._keep(self._find(members), asks.state_line(members, time.time_ns() // 1000))

    def _on_event(self, members: dict[str, Any], _ask: Ask) -> Answer:
        return self._keep(self._find(members), asks.event_line(members, time.time_ns() // 1000))

    def _on_metric(self, members: dict[str, Any], _ask: Ask) -> Answer:
        return self._keep(self._find(members), asks.metric_line(members, time.time_ns() // 1000))

    def _on_heartbeat(self, members: dict[str, Any], _ask: Ask) -> Answer:
        served = self._find(members)
        served.set_beat(_beat_now(served.beat, paused=served.beat.paused))
        return OK

    def _on_pause(self, members: dict[str, Any], _ask: Ask) -> Answer:
        served = self._find(members)
        served.set_beat(served.beat._replace(paused=True))
        return OK

    def _on_resume(self, members: dict[str, Any], _ask: Ask) -> Answer:
        served = self._find(members)
        served.set_beat(_beat_now(served.beat, paused=False))
        return OK

    def _on_end(self, members: dict[str, Any], ask: Ask) -> Answer | None:
        served = self._find(members)
        order = asks.end(members)
        if served.facts.close is None:
            self._keep(served, encode(Close(t=time.time_ns() // 1000, exit_code=order.exit_code)))
            served.refresh()
        self._hurry(served)
        self._pending.append(Pending(served.meta.id, time.monotonic() + order.timeout_s, ask.reply))
        return None

    def _on_where(self, members: dict[str, Any], _ask: Ask) -> Answer:
        served = self._find(members)
        return {"folder": str(served.folder)}

    def _keep(self, served: Served, line: bytes) -> Answer:
        served.keep(line)
        return OK


def health(everyone: list[Served]) -> dict[str, Any]:
    """Return what GET /health says about the sessions."""
    return {
        "sessions": len(everyone),
        "server_reached": all(served.reached for served in everyone),
        "trouble": next((served.trouble for served in everyone if served.trouble), None),
        "spool_bytes": sum(size_bytes(served.folder) for served in everyone),
        "unacked": sum(served.unacked_bytes for served in everyone),
        "dropped": dict(sum((Counter(served.dropped) for served in everyone), Counter[str]())),
    }


def _beat_now(beat: Beat, *, paused: bool) -> Beat:
    return beat._replace(awake_ns=host.awake_ns(), unix_us=time.time_ns() // 1000, on=True, paused=paused)
