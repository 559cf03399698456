"""What lies in a spool: for people, without any daemon. Reads only; whoever serves a session goes on meanwhile."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from datacat import host
from datacat.daemon import quarantine
from datacat.daemon.again import shipper_of
from datacat.daemon.delivery import Delivery
from datacat.daemon.facts import Facts
from datacat.daemon.spool import size_bytes
from datacat.daemon.streams import read_whole
from datacat.daemon.uplink import Uplink
from datacat.errors import JournalError, WireError
from datacat.host.process import Target, alive
from datacat.wire import layout
from datacat.wire.layout import SEGMENT_BYTES, Meta, Summary
from datacat.wire.lines import decode_object


class Item(NamedTuple):
    """One session of a spool.

    status is the word of its journal; active also when its process is gone and nobody has said so yet (then gone is
    true). served is the pid of the daemon that has it, 0: none. waiting counts records that the server is not known to
    have, quarantined those that it refuses. done: nothing is left to ship. damaged says what cannot be read.
    """

    folder: Path
    meta: Meta
    status: str
    gone: bool
    served: int
    size_bytes: int
    written: int
    waiting: int
    quarantined: int
    done: bool
    damaged: str = ""


def items(folders: list[Path]) -> list[Item]:
    """Return the sessions in these spools, oldest first."""
    found = []
    for spool in folders:
        with contextlib.suppress(OSError):
            found += [item for path in spool.iterdir() if (item := _item(path)) is not None]
    return sorted(found, key=lambda item: item.meta.created_us)


def spools() -> list[Path]:
    """Return the folders in which clients of this user keep journals; those that belong to others are left out."""
    mine = getattr(os, "getuid", lambda: None)()
    found = []
    for folder in host.state_dirs():
        with contextlib.suppress(OSError):
            if mine is None or (folder / layout.SPOOL_DIR).stat().st_uid == mine:
                found.append(folder / layout.SPOOL_DIR)
    return found


def records(item: Item) -> Iterator[dict[str, Any]]:
    """Yield every record that is still on disk, as {stream, offset, record}, and those in quarantine.

    A line that is no JSON object comes as {stream, offset, text}. Raises: JournalError.
    """
    for source in _delivery(item.folder, item.meta).plain_sources():
        for number in source.segments():
            offset = number * source.segment_bytes
            segment = source.segment(number)
            for entry in segment.entries if segment else ():
                line = entry.shown().rstrip(b"\n")
                told: dict[str, Any] = {"stream": source.id, "offset": offset}
                try:
                    yield {**told, "record": decode_object(line)}
                except WireError:
                    yield {**told, "text": line.decode("utf-8", "replace")}
                offset += entry.size
    for refused in quarantine.entries(item.folder):
        yield {"quarantine": quarantine.shown(refused)}


def told(meta: Meta) -> dict[str, Any]:
    """Return who a session is, without the settings: they may hold a key."""
    members: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(meta, settings={}))
    return members


def summary_of(folder: Path) -> Summary | None:
    """Return what is left of a session that is done."""
    try:
        return msgspec.json.decode(read_whole(folder / layout.SUMMARY_FILE), type=Summary)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _item(folder: Path) -> Item | None:
    summary = summary_of(folder)
    meta = _meta(folder)
    if meta is None:
        if summary is None:
            return None
        meta = Meta(summary.id, summary.product, summary.version, "", summary.created_us)
    held = _holder(folder)
    gone = meta.pid > 0 and not (meta.boot_id in ("", host.boot_id()) and alive(Target(meta.pid, meta.process_start)))
    status, damaged = "active", ""
    written = waiting = 0
    if summary is not None:
        status = summary.status
    try:
        if summary is None:
            facts = Facts(folder, meta)
            facts.scan(all_streams=True)
            status = "ended" if facts.close else facts.final.status if facts.final else "active"
        written, waiting = _counts(folder, meta)
    except JournalError as error:
        damaged = str(error)
    return Item(
        folder,
        meta,
        status,
        gone,
        held,
        size_bytes(folder),
        written,
        0 if summary else waiting,
        len(quarantine.entries(folder)),
        done=summary is not None,
        damaged=damaged,
    )


def _counts(folder: Path, meta: Meta) -> tuple[int, int]:
    """Return how many records lie in the streams, and how many of them are not known to be acknowledged."""
    shipper = shipper_of(folder)
    acked = shipper.acked if shipper else {}
    written = waiting = 0
    for source in _delivery(folder, meta).plain_sources():
        offset = source.first()
        while (piece := source.read(offset, SEGMENT_BYTES)).data:
            written += piece.records
            offset = piece.end
        offset = max(source.first(), acked.get(source.id, 0))
        while (piece := source.read(offset, SEGMENT_BYTES)).data:
            waiting += piece.records
            offset = piece.end
    return written, waiting


def _delivery(folder: Path, meta: Meta) -> Delivery:
    return Delivery(folder, meta, Uplink(meta.server_url), daemon_id="", max_records=SEGMENT_BYTES)


def _meta(folder: Path) -> Meta | None:
    try:
        meta = msgspec.json.decode(read_whole(folder / layout.META_FILE), type=Meta)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return meta if meta.id == folder.name and meta.segment_bytes > 0 else None


def _holder(folder: Path) -> int:
    if not host.held(folder / layout.LOCK_FILE):
        return 0
    text = read_whole(folder / layout.LOCK_FILE).strip(b"\0 \n")
    return int(text) if text.isdigit() else -1
