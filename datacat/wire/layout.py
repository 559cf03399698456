"""The journal's format on disk: file names, the segments of a stream, the beat slot. Pure; docs/journal.md tells why.

    <user state dir>/spool/<session id>/            0700, files 0600
      session.json               Meta: who writes, made once by the client
      <stream>/00000000.ndjson   segments; segment n holds the stream's bytes from n x segment_bytes on
      <stream>/00000000.squeezed the same after it gave up records, because the spool was full
      quarantine.ndjson          records that the server refuses for good, each with the reason
      beat                       BEAT slot: the last heartbeat; from DROPPED_OFFSET on: what the client had to drop
      fault, stacks              texts of faulthandler: the crash traceback, the stacks of a hang
      daemon                     Shipper: who ships it and what is acknowledged (a cache for readers)
      lock                       held by the daemon that ships the session
      wake                       named pipe: one byte wakes the daemon (POSIX)
      summary.json               all that is left of a session that is done, for last_run

A segment is a preallocated file of zeros. A record never spans two: what does not fit goes to the next segment, and
the zeros that stay behind count as bytes of the stream. A segment is sealed before the next one is created, so when
segment n + 1 exists nothing is written to n any more. A reader takes what lies before the first zero byte (JSON has
none), up to the last newline.
"""

import struct
import zlib
from typing import Any, NamedTuple

import msgspec

from datacat.errors import WireError

SEGMENT_BYTES = 1024 * 1024
"""Size of a segment: small enough to map in every app, large enough that a burst rotates rarely."""
TAIL_BYTES = 4096
"""A batch proves that it continues its stream by the CRC-32 of this many bytes before it."""

SPOOL_DIR = "spool"
OWNERS_DIR = "owners"
"""Beside the sessions: <pid>-<process start>.lock, held by the daemon of that process for as long as it serves."""
META_FILE = "session.json"
BEAT_FILE = "beat"
FAULT_FILE = "fault"
STACKS_FILE = "stacks"
SHIPPER_FILE = "daemon"
LOCK_FILE = "lock"
WAKE_FILE = "wake"
SUMMARY_FILE = "summary.json"
QUARANTINE_FILE = "quarantine.ndjson"

BEAT = struct.Struct("<qqdB")
"""awake_ns (the clock that stops in sleep), Unix us, timeout_s, flags; little endian."""
BEAT_FILE_BYTES = 4096
DROPPED_OFFSET = 1024
"""From here to the end of the beat file: totals {reason: count} of what the client could not keep, JSON, then zeros.

The page was allocated when the session began, so the totals reach the daemon from a full disk too; it ships their
increase as Dropped records.
"""
BEAT_ON = 1
"""The app beats, or asked to be watched."""
BEAT_PAUSED = 2
BEAT_STEADY = 4
"""Beats come at least every second by themselves: silence is a sign long before the timeout."""
BEAT_WRITES = 8
"""A thread of the app writes the stacks of all threads when beats stop, unless it cannot run."""


class Beat(NamedTuple):
    """What the beat slot says. awake_ns is 0 until the first heartbeat."""

    awake_ns: int
    unix_us: int
    timeout_s: float
    on: bool
    paused: bool
    steady: bool = False
    writes: bool = False


class Meta(msgspec.Struct, omit_defaults=True):
    """session.json: who writes this session and how it wants to be served.

    process_start and boot_id make the pid unmistakable; process_image changes when the process becomes another program
    by exec. Pids of another pid_namespace cannot be looked up. source is client, http, run or direct. stream is the id
    of the app's own stream. oom_counter is the file that counts the kernel's kills for memory in the app's group,
    oom_kills what it said when the session began: the app may be killed before its daemon looks. Fields that a later
    version adds are ignored.
    """

    id: str
    product: str
    version: str
    stream: str
    created_us: int
    pid: int = 0
    process_start: int = 0
    process_image: str = ""
    pid_namespace: int = 0
    boot_id: str = ""
    machine_id: str = ""
    hostname: str = ""
    environment: str | None = None
    platform: str = ""
    server_url: str = ""
    segment_bytes: int = SEGMENT_BYTES
    source: str = "client"
    oom_counter: str = ""
    oom_kills: int = 0
    settings: dict[str, Any] = {}


class Shipper(msgspec.Struct, omit_defaults=True):
    """The file `daemon`: who ships the session and what the server has acknowledged of each stream."""

    pid: int
    port: int = 0
    daemon_id: str = ""
    acked: dict[str, int] = {}
    status: str = "active"
    """ended, crashed or abnormal once the verdict is made."""
    written_us: int = 0
    boot: str = ""
    """The server's boot id at that time: with another one it may have lost something."""


class Summary(msgspec.Struct, omit_defaults=True):
    """summary.json: how a session went, written by the daemon once the verdict is made and all is acknowledged.

    status and end_reason are words of routes; state is the last whole state. hang_seconds is the sum over all hangs.
    """

    id: str
    product: str
    version: str
    created_us: int
    ended_us: int = 0
    status: str = "active"
    end_reason: str | None = None
    end_detail: str | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    hung: bool = False
    """Whether it ever hung."""
    hang_seconds: float = 0.0
    state: dict[str, Any] = {}


def segment_name(number: int) -> str:
    """Return the file name of a stream's segment."""
    return f"{number:08d}.ndjson"


def squeezed_name(number: int) -> str:
    """Return the file name of a sealed segment that gave up records because the spool was full."""
    return f"{number:08d}.squeezed"


def whole_lines(segment: bytes, start: int) -> bytes:
    """Return the whole lines of a segment from byte start on: up to the first zero, then back to the last newline."""
    end = segment.find(b"\0", start)
    if end < 0:
        end = len(segment)
    return segment[start : segment.rfind(b"\n", start, end) + 1] if end > start else b""


def pack_beat(beat: Beat) -> bytes:
    """Return the bytes of the beat slot."""
    flags = beat_flags(on=beat.on, paused=beat.paused, steady=beat.steady, writes=beat.writes)
    return BEAT.pack(beat.awake_ns, beat.unix_us, beat.timeout_s, flags)


def beat_flags(*, on: bool, paused: bool, steady: bool = False, writes: bool = False) -> int:
    """Return the last byte of the beat slot; who reads it leaves bits aside that it does not know."""
    bits = ((on, BEAT_ON), (paused, BEAT_PAUSED), (steady, BEAT_STEADY), (writes, BEAT_WRITES))
    return sum(bit for given, bit in bits if given)


def unpack_beat(slot: bytes) -> Beat:
    """Return what a beat slot says; a slot that is too short (a torn creation) is a slot without heartbeats."""
    if len(slot) < BEAT.size:
        return Beat(0, 0, 0.0, on=False, paused=False)
    awake_ns, unix_us, timeout_s, flags = BEAT.unpack_from(slot)
    said = (bool(flags & bit) for bit in (BEAT_ON, BEAT_PAUSED, BEAT_STEADY, BEAT_WRITES))
    return Beat(awake_ns, unix_us, timeout_s, *said)


def pack_dropped(totals: dict[str, int]) -> bytes:
    """Return the totals of what was dropped as the bytes from DROPPED_OFFSET to the end of the beat file."""
    room = BEAT_FILE_BYTES - DROPPED_OFFSET
    text = msgspec.json.encode(totals) if totals else b""
    return (text if len(text) < room else msgspec.json.encode({"other": sum(totals.values())})).ljust(room, b"\0")


def unpack_dropped(beat_file: bytes) -> dict[str, int]:
    """Return the totals out of the bytes of the whole beat file; empty when it has none.

    Raises: WireError for totals that were read while they changed: read again.
    """
    text = beat_file[DROPPED_OFFSET:].rstrip(b"\0")
    try:
        return msgspec.json.decode(text, type=dict[str, int]) if text else {}
    except msgspec.DecodeError as error:
        raise WireError(f"no totals of drops: {error}") from error


def tail_crc(tail: bytes) -> int:
    """Return the CRC-32 of a stream's last up to TAIL_BYTES bytes before an offset; 0 at offset 0."""
    return zlib.crc32(tail[-TAIL_BYTES:]) if tail else 0
