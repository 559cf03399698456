"""datacat tail: follow what sessions do while they do it."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from datacat.cli import ask, screen, text
from datacat.cli.why import why
from datacat.errors import NotFound
from datacat.wire import routes

INTERVAL_S = 1.0
"""How often the server is asked; a daemon ships every 5 s, so that asking more often shows nothing more."""
_KINDS = {"events": "events", "state": "state_history", "metrics": "metrics"}
"""What --kind names: the list of the session object that holds it."""
_COUNTS = {"events": "events", "state": "states", "metrics": "metrics"}
_AT_ONCE = 200
"""Newest records that every request asks for; when more are new, a second request asks for exactly those."""
_WIDE = 200


class Fresh(NamedTuple):
    """A record that was not shown yet: its kind (event, state, metric), its time and its members."""

    kind: str
    t_us: int
    row: dict[str, Any]


class Follower:
    """Which records of one session were shown already; for one thread.

    The server counts the records of each kind, so that we know how many are new, and takes those in any order of time:
    what a second stream delivers late has an older time and is found all the same.
    """

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self._seen: dict[str, Counter[int]] = {kind: Counter() for kind in _KINDS}
        self._counted = dict.fromkeys(_KINDS, 0)

    def owed(self, session: dict[str, Any]) -> int:
        """Return how many records of one kind are new at most, by the session's counts."""
        return max(int(session["counts"].get(_COUNTS[kind], 0)) - self._counted[kind] for kind in _KINDS)

    def take(self, session: dict[str, Any]) -> list[Fresh]:
        """Return the records of a session object that were not taken before, in the order of their times."""
        fresh = []
        for kind, member in _KINDS.items():
            left = Counter(self._seen[kind])
            for row in session.get(member) or ():
                key = hash(json.dumps(row, sort_keys=True))
                if left[key] > 0:
                    left[key] -= 1
                    continue
                self._seen[kind][key] += 1
                fresh.append(Fresh(kind.removesuffix("s"), text.us_of(row["timestamp"]), row))
            self._counted[kind] = session["counts"].get(_COUNTS[kind], 0)
        return sorted(fresh, key=lambda record: record.t_us)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("session_id", metavar="[ID]", required=False)
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=10, show_default=True, help="Earlier records to begin with."
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(list(_KINDS)),
    multiple=True,
    help="Only these kinds; repeat it. [default: all]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(0.1), default=INTERVAL_S, show_default=True, help="Seconds."
)
@ask.server_option
@click.pass_context
def command(
    ctx: click.Context,
    session_id: str | None,
    lines: int,
    kinds: tuple[str, ...],
    as_json: bool,
    interval_s: float,
    server: str | None,
    api_key: str | None,
) -> None:
    """Follow one session until it ends; without an ID every session that is open, until Ctrl-C."""
    shown = {kind.removesuffix("s") for kind in kinds or _KINDS}
    pause = threading.Event()
    with ask.server_of(ctx, server, api_key) as asked:

        def wait() -> None:
            pause.wait(interval_s)

        if session_id is None:
            _follow_all(asked, _Printer(shown, as_json=as_json, named=True), lines, wait)
        else:
            _follow_one(asked, asked.resolve(session_id), _Printer(shown, as_json=as_json, named=False), lines, wait)


class _Printer:
    """Write records as lines, in a terminal with colours. named: say at each line which session it is of."""

    def __init__(self, kinds: set[str], *, as_json: bool, named: bool) -> None:
        self._kinds = kinds
        self._json = as_json
        self._named = named
        self._out = screen.console()

    def records(self, session: dict[str, Any], fresh: list[Fresh]) -> None:
        for record in fresh:
            if record.kind in self._kinds:
                self._record(session, record)

    def note(self, session: dict[str, Any], kind: str, said: str) -> None:
        """Write a line about the session itself."""
        if self._json:
            self._write({"kind": kind, "session_id": session["id"], "status": session["status"], "message": said})
            return
        style = text.STATUS_STYLES.get(session["status"], "")
        self._line(session, f"-- {session['product']} {session['version']}: {said}", f"bold {style}".strip())

    def _record(self, session: dict[str, Any], record: Fresh) -> None:
        if self._json:
            self._write({"kind": record.kind, "session_id": session["id"], **record.row})
            return
        style = text.LEVEL_STYLES.get(record.row.get("level", ""), "")
        self._line(session, f"{text.clock(record.row['timestamp'])}  {line_of(record)}", style)

    def _line(self, session: dict[str, Any], line: str, style: str) -> None:
        name = text.tame(f"{session['product']} {session['id'][-6:]}  ") if self._named else ""
        line = text.tame(line)
        if self._out.is_terminal:
            self._out.print(screen.markup(name, "cyan") + screen.markup(line, style), soft_wrap=True)
        else:
            click.echo(name + line)

    def _write(self, value: dict[str, Any]) -> None:
        click.echo(json.dumps(value, ensure_ascii=False))


def line_of(record: Fresh) -> str:
    """Return what a record says, after its time."""
    row = record.row
    match record.kind:
        case "event":
            said = f"{row['level']:<8}  {row['name']}  {text.event_text(row)}"
        case "state":
            changes = ", ".join(f"{path} = {text.compact(value)}" for path, value in text.leaves(row["patch"]))
            said = f"state     {changes}"
        case _:
            tags = f"  [{', '.join(row['tags'])}]" if row.get("tags") else ""
            said = f"{row['type']:<8}  {row['name']} = {text.quantity(row['value'], row.get('unit'))}{tags}"
    return text.one_line_keeping(said.rstrip(), _WIDE)


def _poll(asked: ask.Server, follower: Follower, at_least: int = 0) -> tuple[dict[str, Any], list[Fresh]]:
    """Return the session as it is now and its new records."""
    wanted = max(_AT_ONCE, at_least)
    session = asked.session(follower.session_id, dict.fromkeys(("events", "metrics", "history"), wanted))
    while (owed := follower.owed(session)) > wanted and at_least:
        wanted = owed + _AT_ONCE
        session = asked.session(follower.session_id, dict.fromkeys(("events", "metrics", "history"), wanted))
    return session, follower.take(session)


def _begin(asked: ask.Server, session_id: str, printer: _Printer, lines: int) -> tuple[Follower, dict[str, Any]]:
    follower = Follower(session_id)
    session, fresh = _poll(asked, follower)
    printer.note(session, "session", f"{session['status']}, began {text.date_and_time(session['created_at'])}")
    printer.records(session, fresh[len(fresh) - lines :] if lines < len(fresh) else fresh)
    return follower, session


def _follow_one(asked: ask.Server, session_id: str, printer: _Printer, lines: int, wait: Callable[[], None]) -> None:
    follower, session = _begin(asked, session_id, printer, lines)
    status = session["status"]
    while session["active"]:
        wait()
        session, fresh = _poll(asked, follower, at_least=_AT_ONCE)
        printer.records(session, fresh)
        if session["status"] != status and session["active"]:
            printer.note(session, "status", why(session, _now_us()))
        status = session["status"]
    # What the daemon adds to its verdict may come with the next batch.
    wait()
    session, fresh = _poll(asked, follower, at_least=_AT_ONCE)
    printer.records(session, fresh)
    printer.note(session, "end", why(session, _now_us()))


def _follow_all(asked: ask.Server, printer: _Printer, lines: int, wait: Callable[[], None]) -> None:
    """Follow every open session, those that begin later too; never returns, Ctrl-C raises."""
    following: dict[str, tuple[Follower, dict[str, Any]]] = {}
    while True:
        open_now = {
            head["id"]: head for head in asked.sessions({"status": ",".join(sorted(routes.OPEN_STATUSES))}, ask.PAGE)
        }
        for session_id in reversed(open_now):
            if session_id not in following:
                following[session_id] = _begin(asked, session_id, printer, lines)
        for session_id, (follower, before) in list(following.items()):
            if open_now.get(session_id, {}).get("updated_at") == before["updated_at"]:
                continue
            try:
                session, fresh = _poll(asked, follower, at_least=_AT_ONCE)
            except NotFound:
                printer.note(before, "end", "it was deleted")
                del following[session_id]
                continue
            printer.records(session, fresh)
            following[session_id] = (follower, session)
            if not session["active"]:
                printer.note(session, "end", why(session, _now_us()))
                del following[session_id]
            elif session["status"] != before["status"]:
                printer.note(session, "status", why(session, _now_us()))
        wait()


def _now_us() -> int:
    return time.time_ns() // 1000
