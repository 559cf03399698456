"""Six small programs that end in six ways: python -m datacat.cli.demo.programs NAME SERVER_URL LEDGER.

They stand for somebody else's app: each is a few lines of work recorded with datacat, and its own kind of trouble.
Events carry their number, so that the demo can tell that each arrived, once, in order.
"""

import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datacat
from datacat.cli.demo.ledger import Ledger

GROUP = "demo"
"""The group of every event that a program writes itself."""
HEARTBEAT_TIMEOUT_S = 2.0
BURST = 50_000


class App(NamedTuple):
    """What a program has at hand: its session, and log(name, **data), which writes a numbered event and counts it."""

    session: Any
    log: Callable[..., None]
    ledger: Ledger


class Program(NamedTuple):
    """A program: the product and version that it calls itself, what it does, and how it must end."""

    product: str
    version: str
    plan: str
    main: Callable[[App], None]
    status: str
    reason: str
    hangs: bool = False


def invoice_export(app: App) -> None:
    """Do its work and say goodbye."""
    app.session.update_state({"export": {"format": "pdf", "done": 0}})
    for number in range(40):
        with app.session.timer("invoice.render"):
            time.sleep(0.02)
        app.session.log_counter("invoices")
        app.session.update_state({"export": {"done": number + 1}})
        app.log("invoice_written", invoice=1000 + number)
    app.log("export_done", invoices=40)
    app.session.end(0)


def mail_sync(app: App) -> None:
    """Lose a thread to an exception, go on, and die of another one."""
    app.session.update_state({"mailbox": "inbox", "folders": 3})
    app.log("sync_started", folders=3)

    def fetch() -> None:
        raise ConnectionResetError("the server closed the connection to folder 2")

    fetcher = threading.Thread(target=fetch, name="fetch-folder-2")
    fetcher.start()
    fetcher.join()
    time.sleep(0.5)
    app.log("mail_received", folder=3)
    raise ValueError("the subject of message 17 is no text")


def photo_editor(app: App) -> None:
    """Stop beating in the middle of a long filter, come back, and end well."""
    app.session.update_state({"document": "holiday.raw", "layers": 12})
    _beat_for(app, 1.0)
    app.log("filter_started", filter="denoise")
    time.sleep(2 * HEARTBEAT_TIMEOUT_S)
    app.log("filter_finished", filter="denoise")
    _beat_for(app, 1.0)
    app.session.end(0)


def video_player(app: App) -> None:
    """Hang for good; its user loses patience and kills it."""
    app.session.update_state({"film": "metropolis.mkv", "position_s": 0})
    for second in range(5):
        app.session.heartbeat()
        app.session.update_state({"position_s": second})
        app.log("frame_decoded", second=second)
        time.sleep(0.1)
    app.log("opening_audio")
    app.ledger.note(app.ledger.written, marked=True)
    threading.Event().wait()


def map_viewer(app: App) -> None:
    """Run into memory that is not its own."""
    app.session.update_state({"zoom": 14, "tiles": 0})
    for number in range(30):
        app.log("tile_loaded", tile=number)
        app.session.update_state({"tiles": number + 1})
        time.sleep(0.02)
    app.log("drawing_tiles")
    sigsegv: Callable[[], None] = faulthandler._sigsegv  # type: ignore[attr-defined]  # noqa: SLF001  a real one, made for tests
    sigsegv()


def chess_engine(app: App) -> None:
    """Write as fast as it can until somebody pulls the plug."""
    app.session.update_state({"depth": 22})
    for number in range(1, BURST):
        app.log("move_evaluated", score=number % 97)
        if number == BURST // 3:
            app.ledger.note(number, marked=True)
    threading.Event().wait()


PROGRAMS = {
    "export": Program("invoice-export", "1.4.2", "ends well", invoice_export, "ended", "clean"),
    "sync": Program("mail-sync", "3.0.1", "exception in a thread, then a fatal one", mail_sync, "crashed", "exception"),
    "editor": Program(
        "photo-editor", "5.2.0", "stops beating, recovers, ends well", photo_editor, "ended", "clean", hangs=True
    ),
    "player": Program("video-player", "0.9.3", "hangs and is killed", video_player, "crashed", "hang", hangs=True),
    "viewer": Program("map-viewer", "7.0.0", "dies of a segfault", map_viewer, "crashed", "signal"),
    "engine": Program(
        "chess-engine", "2.0.0", "SIGKILL in a burst of 50,000 events", chess_engine, "crashed", "killed"
    ),
}


def _beat_for(app: App, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        app.session.heartbeat()
        app.log("brush_stroke")
        time.sleep(0.1)


def main(name: str, server_url: str, ledger_path: str) -> None:
    """Be the program of that name."""
    program = PROGRAMS[name]
    with Ledger(Path(ledger_path)) as ledger:
        session = datacat.create_session(server_url, program.product, program.version, environment="demo")
        ledger.session_id = session.id
        written = 0

        def log(event: str, **data: Any) -> None:
            nonlocal written
            session.log_event(event, group=GROUP, data={"n": written, **data})
            written += 1
            ledger.note(written, marked=ledger.marked)

        if program.hangs:
            session.start_heartbeat_monitor(timeout=HEARTBEAT_TIMEOUT_S, loop=None)
        program.main(App(session, log, ledger))


if __name__ == "__main__":
    main(*sys.argv[1:])
