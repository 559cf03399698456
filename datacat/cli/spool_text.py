"""How a session of the spool looks: rows, JSON members, and the pages of a black box."""

from collections.abc import Iterable
from typing import Any

from datacat.cli import show, text
from datacat.cli.screen import Cell, Column, Row
from datacat.daemon import checkpoint, inventory, quarantine
from datacat.daemon.again import shipper_of
from datacat.daemon.inventory import Item
from datacat.daemon.streams import Source
from datacat.daemon.view import View
from datacat.errors import JournalError
from datacat.store import fold
from datacat.wire.records import Open
from datacat.wire.times import rfc3339

COLUMNS = (
    Column("ID"),
    Column("PRODUCT"),
    Column("VERSION", rank=3),
    Column("STATUS"),
    Column("APP", rank=2),
    Column("STARTED"),
    Column("SIZE", right=True, rank=1),
    Column("RECORDS", right=True, rank=4),
    Column("WAITING", right=True),
    Column("REFUSED", right=True),
    Column("DAEMON", rank=5),
)


def rows(items: list[Item], now_us: int, *, whole_ids: bool) -> list[Row]:
    """Return one row of COLUMNS for each session. whole_ids: for a pipe, where the next program needs them."""
    shorts = text.short_ids([item.meta.id for item in items])
    return [
        (
            item.meta.id if whole_ids else Cell(shorts[item.meta.id], "cyan"),
            item.meta.product,
            item.meta.version,
            Cell("damaged", "red") if item.damaged else Cell(item.status, text.STATUS_STYLES.get(item.status, "")),
            "-" if item.done or not item.meta.pid else "gone" if item.gone else str(item.meta.pid),
            started if whole_ids else text.ago(started, now_us),
            size_text(item.size_bytes),
            str(item.written),
            Cell(str(item.waiting), "yellow" if item.waiting else ""),
            Cell(str(item.quarantined), "red" if item.quarantined else ""),
            str(item.served) if item.served > 0 else "?" if item.served else "-",
        )
        for item in items
        for started in (rfc3339(item.meta.created_us),)
    ]


def members(item: Item) -> dict[str, Any]:
    """Return a session of the spool as JSON."""
    return {
        "id": item.meta.id,
        "product": item.meta.product,
        "version": item.meta.version,
        "status": item.status,
        "created_at": rfc3339(item.meta.created_us),
        "pid": item.meta.pid or None,
        "app_gone": item.gone,
        "daemon_pid": item.served or None,
        "folder": str(item.folder),
        "size_bytes": item.size_bytes,
        "written": item.written,
        "waiting": item.waiting,
        "quarantined": item.quarantined,
        "done": item.done,
        "damaged": item.damaged or None,
        "server_url": item.meta.server_url or None,
        "acknowledged": shipper.acked if (shipper := shipper_of(item.folder)) else {},
        "quarantine": [quarantine.shown(refused) for refused in quarantine.entries(item.folder)],
    }


def session(item: Item) -> dict[str, Any]:
    """Return the session object out of the journal; of a session whose journal has gone, what its summary tells."""
    summary = inventory.summary_of(item.folder)
    try:
        found = View(item.folder, item.meta).session()
    except JournalError:
        found = {}
    if summary is None or found.get("counts", {}).get("events"):
        return found or _bare(item)
    told = {
        "status": summary.status,
        "end_reason": summary.end_reason,
        "end_detail": summary.end_detail,
        "exit_code": summary.exit_code,
        "exit_signal": summary.exit_signal,
        "ended_at": rfc3339(summary.ended_us) if summary.ended_us else None,
        "hang_seconds": summary.hang_seconds,
        "state": summary.state,
        "active": False,
        "crashed": summary.status == "crashed",
    }
    return {**(found or _bare(item)), **told}


def pages(item: Item, found: dict[str, Any], events: int, now_us: int) -> list[show.Section]:
    """Return the pages of `datacat show`, and one about the journal itself."""
    return [*show.sections(found, [], events, now_us), ("Journal", [*_journal(item)]), *_refused(item)]


def size_text(size_bytes: int) -> str:
    """Return a size as people say it."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _bare(item: Item) -> dict[str, Any]:
    opened = Open(t=item.meta.created_us, product=item.meta.product, version=item.meta.version)
    head = fold.fold(fold.new_head(item.meta.id, opened), {}, [opened]).head
    return {**fold.public(head), "state": {}, "events": [], "metrics": [], "state_history": []}


def _journal(item: Item) -> Iterable[str]:
    shipper = shipper_of(item.folder)
    acked = shipper.acked if shipper else {}
    yield f"{item.folder}  {size_text(item.size_bytes)}"
    where = item.meta.server_url or "a server"
    yield f"{item.written} records on disk, {item.waiting} of them not known to be on {where}"
    if item.damaged:
        yield item.damaged
    if item.served:
        yield f"served by the daemon with pid {item.served}"
    bases = checkpoint.load(item.folder)
    for path in sorted(path for path in item.folder.iterdir() if path.is_dir()):
        source = Source(path.name, path, item.meta.segment_bytes)
        whose = "the app" if path.name == item.meta.stream else "a daemon"
        try:
            end, first = source.end(), source.first()
        except JournalError as error:
            yield f"stream {path.name} of {whose}: {error}"
            continue
        gone = f", {first} bytes before are gone" if first else ""
        goes_on = ", goes on under another id" if path.name in bases and bases[path.name].stand_in else ""
        far = f"{end} bytes, {acked.get(path.name, 0)} acknowledged"
        yield f"stream {path.name} of {whose}: {far}{gone}{goes_on}"


def _refused(item: Item) -> list[show.Section]:
    lines: list[Cell | str] = [
        f"{one.status}  {text.one_line(one.detail, 80)}  {text.one_line(one.record, 160)}"
        for one in quarantine.entries(item.folder)
    ]
    return [(f"{len(lines)} refused by the server", lines)] if lines else []
