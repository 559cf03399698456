"""The spool: which sessions lie there, whose they are, and what is left of those that are done."""

import contextlib
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

import msgspec

from datacat import host
from datacat.daemon.streams import disk_bytes, read_whole, write_whole
from datacat.daemon.view import View
from datacat.errors import Busy, HostError, JournalError
from datacat.host import faults
from datacat.host.process import Target, alive
from datacat.wire import layout
from datacat.wire.layout import Meta, Summary

_log = logging.getLogger(__name__)

SUMMARIES = 5
"""Of each product, for last_run."""
KEPT_S = 24 * 3600.0
"""Acknowledged segments of a session that is done stay so long, in case the server is restored from a backup."""
FOREIGN_S = 24 * 3600.0
"""A session of another pid namespace, whose process cannot be looked up, is an orphan after so much silence."""
STARTING_S = 10.0
"""An interpreter on a machine that is busy starts within that."""
QUARANTINE_S = 30 * 24 * 3600.0
"""A session with records in quarantine stays so long, whatever comes after it."""
_GONE_WITH_THE_END = (layout.WAKE_FILE, layout.BEAT_FILE, layout.STACKS_FILE, layout.FAULT_FILE, layout.LOCK_FILE)


class Found(NamedTuple):
    """A session in the spool that is not done."""

    folder: Path
    meta: Meta


def prepared(folders: list[Path]) -> Path:
    """Return the first spool that can be written, made with its folder of locks. Raises: JournalError when none can."""
    reasons = []
    for spool in folders:
        try:
            (spool / layout.OWNERS_DIR).mkdir(mode=0o700, parents=True, exist_ok=True)
            if hasattr(os, "getuid") and spool.stat().st_uid != os.getuid():
                reasons.append(f"{spool} belongs to somebody else")
            elif os.access(spool, os.W_OK | os.X_OK):
                if reasons:
                    _log.warning("journals go to %s: %s", spool, "; ".join(reasons))
                return spool
            else:
                reasons.append(f"{spool} cannot be written")
        except OSError as error:
            reasons.append(f"{spool}: {error.strerror}")
    raise JournalError("no folder for journals: " + "; ".join(reasons), hint="name one with --spool")


def sessions(spool: Path, known: AbstractSet[str] = frozenset()) -> list[Found]:
    """Return the sessions that are not done, oldest first; folders that are no session yet are left out."""
    found = []
    for name in _names(spool):
        folder = spool / name
        if name in known or (folder / layout.SUMMARY_FILE).exists():
            continue
        try:
            meta = msgspec.json.decode(read_whole(folder / layout.META_FILE), type=Meta)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if meta.id == name and meta.segment_bytes > 0:
            found.append(Found(folder, meta))
    return sorted(found, key=lambda one: one.meta.created_us)


def whose(found: Found, owner: Target | None, boot_id: str, pid_namespace: int, now_s: float) -> str:
    """Return own (our owner's), orphan (to be judged), http (its client may come back), or an empty text."""
    meta = found.meta
    if owner is not None and owner == Target(meta.pid, meta.process_start) and meta.boot_id in ("", boot_id):
        return "own"
    of_http = meta.source == "http"
    if of_http and owner is not None and meta.pid <= 0:
        return ""  # a daemon that was started by hand serves it on
    if is_orphan(found, boot_id, pid_namespace, now_s):
        return "orphan" if meta.pid > 0 else "http"
    return "http" if of_http and owner is None and not host.held(found.folder / layout.LOCK_FILE) else ""


def is_orphan(found: Found, boot_id: str, pid_namespace: int, now_s: float) -> bool:
    """Whether nobody will ever serve a session again unless we do. Whoever asks takes its lock afterwards."""
    meta = found.meta
    if host.held(found.folder / layout.LOCK_FILE):
        return False
    if meta.boot_id and meta.boot_id != boot_id:
        return True
    if meta.pid <= 0:
        return True
    if meta.pid_namespace and pid_namespace and meta.pid_namespace != pid_namespace:
        return now_s - _newest_change_s(found.folder) > FOREIGN_S
    owner = Target(meta.pid, meta.process_start)
    own_daemon = owner_lock(found.folder.parent, owner)
    if host.held(own_daemon):
        return False
    # An app that died at once: its own daemon is still starting, and it alone has the pidfd that knows how it ended.
    if not own_daemon.exists() and now_s - meta.created_us / 1e6 < STARTING_S:
        return False
    return not alive(owner)


def retire(folder: Path, meta: Meta) -> None:
    """Write summary.json and remove what only a living session needs. Raises: JournalError."""
    write_whole(folder / layout.SUMMARY_FILE, msgspec.json.encode(View(folder, meta).summary()))
    faults.at("session.retired")
    for name in _GONE_WITH_THE_END:
        with contextlib.suppress(OSError):
            (folder / name).unlink()


def clear(spool: Path, now_s: float) -> None:
    """Remove segments that were kept long enough, all but the newest summaries, and dead owners' locks."""
    by_product: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for name in _names(spool):
        folder = spool / name
        try:
            summary = msgspec.json.decode(read_whole(folder / layout.SUMMARY_FILE), type=Summary)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        by_product[summary.product].append((summary.created_us, folder))
        with contextlib.suppress(OSError):
            if now_s - (folder / layout.SUMMARY_FILE).stat().st_mtime > KEPT_S:
                _keep_only_summary(folder)
    for done in by_product.values():
        done.sort()
        for _, folder in done[:-SUMMARIES]:
            if now_s - _changed_s(folder / layout.QUARANTINE_FILE) > QUARANTINE_S:
                shutil.rmtree(folder, ignore_errors=True)
    _clear_owners(spool)


def remove(folder: Path) -> None:
    """Remove a session that the server has deleted."""
    shutil.rmtree(folder, ignore_errors=True)


def size_bytes(folder: Path) -> int:
    """Return the disk space that a session's folder takes."""
    return sum(disk_bytes(Path(root) / name) for root, _, names in os.walk(folder) for name in names)


def total_bytes(spool: Path) -> int:
    """Return the disk space that all sessions of a spool take."""
    return sum(size_bytes(spool / name) for name in _names(spool))


def forget_acknowledged(spool: Path, need_bytes: int) -> int:
    """Remove what is kept of sessions that are done, oldest first, until need_bytes are free; return how many are."""
    freed = 0
    for folder in sorted(_done(spool), key=lambda folder: (folder / layout.SUMMARY_FILE).stat().st_mtime):
        if freed >= need_bytes:
            break
        with contextlib.suppress(HostError):
            lock = host.lock(folder / layout.LOCK_FILE)
            before = size_bytes(folder)
            _keep_only_summary(folder)
            lock.release()
            freed += before - size_bytes(folder)
    return freed


def _done(spool: Path) -> list[Path]:
    return [spool / name for name in _names(spool) if (spool / name / layout.SUMMARY_FILE).exists()]


def make(spool: Path, meta: Meta) -> Path:
    """Make the folder of a session that comes through the HTTP endpoints. Raises: Busy, JournalError."""
    folder = spool / meta.id
    try:
        folder.mkdir(mode=0o700, parents=True)
        write_whole(folder / layout.META_FILE, msgspec.json.encode(meta))
    except FileExistsError as error:
        raise Busy(f"there is a session {meta.id} already") from error
    except OSError as error:
        raise JournalError(f"cannot make {folder}: {error.strerror}") from error
    return folder


def owner_lock(spool: Path, target: Target) -> Path:
    """Return the lock that the daemon of a process holds."""
    return spool / layout.OWNERS_DIR / f"{target.pid}-{target.start}.lock"


def _names(spool: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(spool) if entry.name != layout.OWNERS_DIR and entry.is_dir()]
    except OSError:
        return []


def _newest_change_s(folder: Path) -> float:
    newest = 0.0
    for root, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            newest = max(newest, Path(root).stat().st_mtime)
    with contextlib.suppress(OSError):
        newest = max(newest, (folder / layout.BEAT_FILE).stat().st_mtime)
    return newest


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _keep_only_summary(folder: Path) -> None:
    """Remove the rest; but records in quarantine stay, and with them whose they are."""
    refused = (folder / layout.QUARANTINE_FILE).exists()
    kept = {layout.SUMMARY_FILE, *((layout.META_FILE, layout.QUARANTINE_FILE) if refused else ())}
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in kept:
            path.unlink(missing_ok=True)


def _clear_owners(spool: Path) -> None:
    """Remove the lock files of processes that are gone; one that is held stays."""
    for path in (spool / layout.OWNERS_DIR).glob("*.lock"):
        pid, _, start = path.stem.partition("-")
        if pid.isdigit() and start.isdigit() and not host.held(path) and not alive(Target(int(pid), int(start))):
            with contextlib.suppress(OSError):
                path.unlink()
