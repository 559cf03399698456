"""One session's way to the server: cut batches from its streams, fold, send, follow the answers. Exactly once.

The server is the truth about what is acknowledged: it is asked first, and again when its boot id changes. Owned by the
uplink's thread.
"""

import contextlib
import logging
import os
import time
from pathlib import Path

from datacat.daemon import checkpoint, quarantine
from datacat.daemon.backoff import Backoff
from datacat.daemon.batch import Folded, fold
from datacat.daemon.pending import Pending
from datacat.daemon.quarantine import Refused
from datacat.daemon.streams import Piece, Source, disk_bytes
from datacat.daemon.uplink import Uplink
from datacat.errors import JournalError, UplinkError, WireError
from datacat.host import faults
from datacat.wire import ids
from datacat.wire.layout import TAIL_BYTES, Meta, segment_name, squeezed_name
from datacat.wire.lines import decode, encode
from datacat.wire.records import MAX_BATCH_BYTES, Dropped, Gap, State
from datacat.wire.routes import batches_path, session_path

_log = logging.getLogger(__name__)

BATCH_BYTES = 512 * 1024
"""Journal bytes in one batch: thousands of records, and little memory for a process that is to stay small."""
KEPT_BYTES = 4 * 1024 * 1024
"""Acknowledged bytes of a stream that stay, in case the server is restored from a backup."""
MAX_SPOOL_BYTES = 512 * 1024 * 1024
"""Of one stream; what is older is given up, and a gap record says so."""
MAX_TURNS = 8
"""Answers in a row that move nothing; then something is wrong and we wait."""
_MAY_PASS = frozenset({401, 403, 404, 405, 407, 408, 409, 410, 421, 425, 426, 429})
"""The 4xx that are not about what a batch says: keys, addresses, proxies, time. The others refuse its records."""


class Delivery:
    """Ship one session. last: nothing more comes, so the final batch keeps every record on its own.

    boot is the start of the server that was asked what it has.
    """

    def __init__(self, folder: Path, meta: Meta, uplink: Uplink, *, daemon_id: str, max_records: int) -> None:
        self.folder = folder
        self.meta = meta
        self.uplink = uplink
        self.last = False
        self.deleted = False
        self.asked = False
        self.given_up: dict[str, int] = {}
        self.backoff = Backoff(60.0)
        self.boot = ""
        self._daemon_id = daemon_id
        self._max_records = max_records
        self._cursors: dict[str, int] = {}
        self._states: dict[str, tuple[int, State | None]] = {}
        self._pending = Pending()
        self._bases = checkpoint.load(folder)

    def ship(self) -> None:
        """Send everything that is in the journal now.

        Raises: UplinkError when the server does not take it, JournalError when the journal cannot be read.
        """
        if self.deleted:
            return
        if not self.asked or self.boot != self.uplink.boot:
            self._ask()
        turns = 0
        while not self.deleted and turns < MAX_TURNS and not all(map(self._ship_stream, self._in_turn())):
            turns += 1
        if turns == MAX_TURNS:
            raise UplinkError(f"session {self.meta.id} does not move on", status=409)

    def _in_turn(self) -> list[Source]:
        """Return the streams to ship: at the end of a session the verdict does not wait behind a long backlog."""
        sources = self.sources()
        if self.last and sources and self._cursors.get(sources[0].id, 0) > 0:
            return [*sources[1:], sources[0]]
        return sources

    def gave_up(self, went: dict[str, int]) -> None:
        """Note what the cap of the spool took from this session; the server learns it from the records themselves."""
        for reason, count in went.items():
            self.given_up[reason] = self.given_up.get(reason, 0) + count
        self._pending.clear()

    def unacked_bytes(self) -> int:
        """Return how much the server has not acknowledged, filler included."""
        size = 0
        for source in self.sources():
            start = max(self._cursors.get(source.id, 0), source.first())
            if source.read(start, 1).data:
                size += source.end() - start
        return size

    def acked(self) -> dict[str, int]:
        """Return the acknowledged offset of each stream on disk."""
        offsets = {}
        for source in self.plain_sources():
            base = self._bases.get(source.id)
            if base is not None and base.stand_in:
                behind = self._cursors.get(base.stand_in, 0) - len(base.prefix.encode())
                offsets[source.id] = base.stand_in_base + max(0, behind)
            else:
                offsets[source.id] = self._cursors.get(source.id, 0)
        return offsets

    def sources(self) -> list[Source]:
        """Return the streams to ship, the app's own first: its open record creates the session on the server."""
        return [self._stand_in(source) for source in self.plain_sources()]

    def plain_sources(self) -> list[Source]:
        """Return the streams as they are on disk, in the same order."""
        try:
            names = [path.name for path in self.folder.iterdir() if path.is_dir()]
        except OSError:
            return []
        names.sort(key=lambda name: (name != self.meta.stream, _age(self.folder / name), name))
        return [Source(name, self.folder / name, self.meta.segment_bytes) for name in names if _is_stream(name)]

    def _stand_in(self, source: Source) -> Source:
        base = self._bases.get(source.id)
        if base is None or not base.stand_in:
            return source
        prefix = base.prefix.encode()
        return Source(base.stand_in, source.folder, source.segment_bytes, prefix=prefix, base=base.stand_in_base)

    def _ask(self) -> None:
        try:
            answer = self.uplink.get(session_path(self.meta.id, "acked"))
        except UplinkError as error:
            if error.status == 410:
                self.deleted = True
                return
            if error.status != 404:
                raise
            answer = {}
        streams = answer.get("streams")
        self._cursors = {str(k): int(v) for k, v in streams.items()} if isinstance(streams, dict) else {}
        self._states.clear()
        self.asked = True
        if boot := answer.get("boot"):
            self.uplink.boot = str(boot)
        self.boot = self.uplink.boot

    def _ship_stream(self, source: Source) -> bool:
        """Send what there is of one stream; False when the sources have changed and all must be looked at again."""
        limit = BATCH_BYTES
        turns = 0
        while True:
            start = self._cursors.get(source.id, 0)
            first = source.first()
            if start < first:
                self._replace(source, first, "trimmed", first - start)
                return False
            if 0 < start - TAIL_BYTES < first:  # nothing is lost, but that it continues cannot be proved any more
                self._replace(source, start, "trimmed", 0)
                return False
            piece = source.read(start, limit, self._max_records)
            if not piece.data:
                return True
            folded = self._fold(source, start, piece)
            body = b"".join(folded.lines)
            several = piece.data.count(b"\n") > 1
            if len(body) > MAX_BATCH_BYTES and several:
                limit = max(1, len(piece.data) // 2)
                continue
            faults.at("batch.cut")
            try:
                acked = self._post(source, start, piece, body)
            except UplinkError as error:
                refused = 400 <= error.status < 500 and error.status not in _MAY_PASS
                if refused and several:
                    limit = max(1, len(piece.data) // 2)
                    continue
                if refused:
                    acked = self._set_aside(source, start, piece, folded, error)
                elif error.status == 409 and (turns := turns + 1) < MAX_TURNS:
                    if not self._moved(source, start, error):
                        return False
                    continue
                elif error.status == 410:
                    self.deleted = True
                    return True
                elif error.status == 404 and (start > 0 or source.id != self._first_id()):
                    # The server has lost the session: from the start, the stream with the open record first.
                    self._cursors.clear()
                    self._states.clear()
                    return False
                else:
                    raise
            turns = 0
            limit = BATCH_BYTES
            self._states[source.id] = (piece.end, folded.state)
            faults.at("batch.answered")
            if not self._take(source, start, piece.end, acked):
                return False
            faults.at("cursor.moved")

    def _fold(self, source: Source, start: int, piece: Piece) -> Folded:
        at, state = self._states.get(source.id, (0, None))
        last = self.last and not source.read(piece.end, 1).data
        known = state if at == start else None
        return fold(piece.data, state=known, last=last, torn=piece.torn, daemon_id=self._daemon_id)

    def _set_aside(self, source: Source, start: int, piece: Piece, folded: Folded, error: UplinkError) -> int:
        """Keep a record that the server will never take, and send a count in its place. Raises: UplinkError."""
        _log.warning("session %s: a record is refused and goes into quarantine: %s", self.meta.id, error)
        said = str(error.body.get("detail") or error.message)[:1000]
        text = piece.data.decode("utf-8", "replace").rstrip("\n")
        now_us = time.time_ns() // 1000
        quarantine.keep(self.folder, Refused(now_us, source.id, start, piece.end, error.status, said, text))
        faults.at("quarantine.written")
        return self._post(source, start, piece, _refused(folded))

    def _post(self, source: Source, start: int, piece: Piece, body: bytes) -> int:
        """Return what is acknowledged now. Raises: UplinkError."""
        pending = self._pending.behind(source, piece.end)
        crc, end_crc = source.crc(start), source.crc(piece.end)
        path = batches_path(
            self.meta.id, source.id, start, piece.end, crc, end_crc, records=piece.records, pending=pending
        )
        answer = self.uplink.post_batch(path, body, urgent=self.last or start == 0)
        self.uplink.batches += 1
        acked = answer.get("acked")
        if not isinstance(acked, int) or acked <= start:
            raise UplinkError(f"{self.uplink.url} answered a batch with acked={acked!r}")
        self._note_boot(answer.get("boot"))
        return acked

    def _note_boot(self, boot: object) -> None:
        """A server that was started anew may have lost something: every session asks again what it has."""
        if isinstance(boot, str) and boot:
            if not self.uplink.boot:
                self.boot = boot
            self.uplink.boot = boot

    def _take(self, source: Source, start: int, end: int, acked: int) -> bool:
        """Move the cursor; False when the stream cannot go on under its id."""
        if acked > end and acked > source.end():
            return self._ahead(source, start, acked)
        self._cursors[source.id] = acked
        return True

    def _moved(self, source: Source, start: int, error: UplinkError) -> bool:
        """Follow a 409: cut again from where the server is; False when the stream cannot go on under its id."""
        self._note_boot(error.body.get("boot"))
        acked = error.body.get("acked")
        if error.body.get("reason") == "diverged":
            self._replace(source, start, "diverged", 0)
            return False
        if not isinstance(acked, int) or acked < 0:
            raise error
        if acked > source.end():
            return self._ahead(source, start, acked)
        self._cursors[source.id] = acked
        return True

    def _ahead(self, source: Source, start: int, acked: int) -> bool:
        """The server has more of the stream than this disk: the machine lost power, or was set back to a snapshot."""
        if self.last:  # nobody will write into the hole
            self._cursors[source.id] = acked
            return True
        self._replace(source, start, "set_back", 0)
        return False

    def _replace(self, source: Source, at: int, reason: str, lost_bytes: int) -> None:
        """Let a new stream stand in for source from offset at on; it begins with a gap record."""
        name = source.folder.name
        plain = Source(name, source.folder, source.segment_bytes)
        start = max(0, at - len(source.prefix)) + source.base
        base = checkpoint.advance(self._bases.get(name, checkpoint.Base()), plain, start)
        own = name == self.meta.stream or base.open is not None
        gap = Gap(
            t=time.time_ns() // 1000,
            reason=reason,
            lost_bytes=lost_bytes,
            open=base.open,
            state=base.state if own else None,
        )
        base.stand_in, base.stand_in_base, base.prefix = os.urandom(8).hex(), start, encode(gap).decode()
        self._bases[name] = base
        faults.at("stand_in.decided")
        checkpoint.save(self.folder, self._bases)
        faults.at("stand_in.saved")
        _log.warning("session %s goes on under a new stream: %s", self.meta.id, reason)

    def _first_id(self) -> str:
        sources = self.sources()
        return sources[0].id if sources else ""

    def trim(self, kept_bytes: int | None = None) -> int:
        """Delete segments that are acknowledged and old, or too many; return the bytes freed. Raises: JournalError."""
        acked = self.acked()
        freed = 0
        for source in self.plain_sources():
            numbers = source.segments()
            size = source.segment_bytes
            surplus = (numbers[-1] - numbers[0] + 1) * size - MAX_SPOOL_BYTES if numbers else 0
            kept_from = acked.get(source.id, 0) - max(KEPT_BYTES if kept_bytes is None else kept_bytes, TAIL_BYTES)
            if surplus > 0:
                kept_from = max(kept_from, numbers[0] * size + surplus)
            going = [number for number in numbers[:-1] if (number + 1) * size <= kept_from]
            if not going:
                continue
            base = self._bases.get(source.id, checkpoint.Base())
            self._bases[source.id] = checkpoint.advance(base, source, (going[-1] + 1) * size)
            checkpoint.save(self.folder, self._bases)
            faults.at("trim.saved")
            for number in going:
                for path in (source.folder / segment_name(number), source.folder / squeezed_name(number)):
                    freed += disk_bytes(path)
                    try:
                        path.unlink(missing_ok=True)
                    except OSError as error:
                        raise JournalError(f"cannot remove {path}: {error.strerror}") from error
        return freed


def _refused(folded: Folded) -> bytes:
    """Return what stands for a record that the server does not take, so that its stream goes on."""
    t = 0
    for line in folded.lines:
        with contextlib.suppress(WireError):
            t = decode(line[:-1]).t
    return encode(Dropped(t=t or time.time_ns() // 1000, counts={"refused": 1}))


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_ctime
    except OSError:
        return 0.0


def _is_stream(name: str) -> bool:
    try:
        return ids.stream_id(name) == name
    except WireError:
        return False
