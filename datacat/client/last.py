"""last_run(product): how the previous run on this machine ended, read from the spool alone."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from datacat import host
from datacat.client import folder
from datacat.client.local import process_identity
from datacat.errors import HostError, WireError
from datacat.wire import layout, lines, state, times
from datacat.wire.layout import Meta, Summary
from datacat.wire.records import Close, Closing, Open, Record, StatePatch, Verdict
from datacat.wire.routes import OPEN_STATUSES

_BAD = frozenset({"crashed", "abnormal"})


def last_run(product: str, state_dir: str | Path | None = None) -> dict[str, Any] | None:
    """Return how the newest earlier run of product on this machine went; None when there is none.

    The members are those of a session object: id, product, version, created_at, ended_at (None while it runs), status,
    end_reason, end_detail, exit_code, exit_signal, hung (it ever did), hang_seconds, state (the last one), and
    bad_ends: how many of the newest runs that are over crashed or ended abnormally in a row (the newest five are kept).
    Sessions of this process do not count.
    Never raises.
    """
    try:
        roots = folder.roots(state_dir)
        runs = sorted(
            (run for root in roots for run in _runs(root / layout.SPOOL_DIR, product)),
            key=lambda run: run.created_us,
            reverse=True,
        )
    except (OSError, ValueError):  # ValueError: a name that no file system takes
        return None
    if not runs:
        return None
    ends = [run for run in runs if run.status not in OPEN_STATUSES]  # another one that still runs is no end
    bad_ends = next((count for count, run in enumerate(ends) if run.status not in _BAD), len(ends))
    last = runs[0]
    public = {name: getattr(last, name) for name in last.__struct_fields__ if not name.endswith("_us")}
    return public | {
        "created_at": times.rfc3339(last.created_us),
        "ended_at": times.rfc3339(last.ended_us) if last.ended_us else None,
        "bad_ends": bad_ends,
    }


def _runs(spool: Path, product: str) -> Iterable[Summary]:
    own = process_identity()
    boot = host.boot_id()
    for each in spool.iterdir() if spool.is_dir() else ():
        if (summary := _read(each / layout.SUMMARY_FILE, Summary)) is not None:
            meta = _read(each / layout.META_FILE, Meta)
        elif (meta := _read(each / layout.META_FILE, Meta)) is not None and meta.product == product:
            summary = told_by_records(meta, records_in(each), gone=_is_gone(meta, boot), rebooted=meta.boot_id != boot)
        if summary is None or summary.product != product:
            continue
        if meta is not None and (meta.pid, meta.process_start, meta.boot_id) == (*own, boot):
            continue
        yield summary


def told_by_records(meta: Meta, records: Iterable[Record], *, gone: bool, rebooted: bool) -> Summary:
    """Return what the records of a session say about it; gone and rebooted are the evidence where they say nothing.

    Records are in order. A verdict of the daemon stands unless the app itself said that it ended.
    """
    told = Summary(meta.id, meta.product, meta.version, meta.created_us)
    now: dict[str, Any] = {"product": meta.product, "version": meta.version}
    closed = False
    closing: Closing | None = None
    for record in records:
        match record:
            case Open(state=dict() as first):
                now = state.merge(now, first)
            case StatePatch():
                now = state.merge(now, record.patch)
            case Close():
                told.status, told.end_reason, told.ended_us = "ended", "clean", record.t
                told.exit_code = record.exit_code
                closed = True
            case Closing():
                closing = record
            case Verdict():
                told.hung = told.hung or record.status == "hung"
                told.hang_seconds += record.hang_s or 0.0
                told.exit_code = told.exit_code if record.exit_code is None else record.exit_code
                told.exit_signal = told.exit_signal if record.exit_signal is None else record.exit_signal
                if not closed:
                    told.status, told.end_reason, told.end_detail = record.status, record.reason, record.detail
                    told.ended_us = record.t if record.status in ("ended", *_BAD) else 0
            case _:
                pass
    told.state = now
    if told.status in ("ended", *_BAD):
        return told
    if closing is not None and closing.exception_type:
        told.status, told.end_reason, told.ended_us = "crashed", "exception", closing.t
        told.end_detail = f"{closing.exception_type}: {closing.exception_msg or ''}"
    elif closing is not None:
        told.status, told.end_reason, told.ended_us = "ended", "closed", closing.t
    elif rebooted:
        told.status, told.end_reason = "abnormal", "reboot"
    elif gone:
        told.status, told.end_reason = "crashed", "unknown"
    return told


def records_in(session_folder: Path) -> list[Record]:
    """Return the records that a session's folder still has, all streams, ordered by time."""
    found: list[Record] = []
    for segment in sorted(session_folder.glob("*/*.ndjson")):
        try:
            body = layout.whole_lines(segment.read_bytes(), 0)
        except OSError:
            continue
        for raw in body.splitlines():
            try:
                found.append(lines.decode(raw))
            except WireError:
                continue
    return sorted(found, key=lambda record: record.t)


def _is_gone(meta: Meta, boot: str) -> bool:
    if meta.boot_id != boot:
        return True
    if meta.pid_namespace != host.pid_namespace() or not meta.pid:
        return False  # not to be looked up from here
    if meta.pid == os.getpid():
        return meta.process_start != process_identity()[1]
    try:
        return host.process_start(meta.pid) != meta.process_start
    except HostError:
        return True


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
