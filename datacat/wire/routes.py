"""Paths, headers, media types and status words that two programs have to agree on."""

SERVER_URL = "http://localhost:8080"
"""Where clients look for the server when they are not told."""
DAEMON_PORT = 8079
"""The daemon's first choice; when it is taken, the next free one."""

NDJSON = "application/x-ndjson"
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
PROBLEM = "application/problem+json"

SESSIONS = "/api/sessions"
DAEMONS = "/api/daemons"

STATUS_CODES = {"ended": 0, "active": 1, "suspended": 2, "hung": 3, "crashed": 4, "abnormal": 5}
"""Every status word with its number, as dashboards show it."""
OPEN_STATUSES = frozenset({"active", "suspended", "hung"})
"""A session in one of these has not ended."""

END_REASONS = {
    "ended": ("clean", "exit_zero", "closed", "terminated"),
    "crashed": ("exception", "signal", "exit_code", "killed", "oom", "hang", "unknown"),
    "abnormal": ("power", "reboot", "lost"),
}
"""The words that end_reason may have for each final status."""


def session_path(session_id: str, tail: str = "") -> str:
    """Return the path of a session, or of one thing below it."""
    return f"{SESSIONS}/{session_id}/{tail}" if tail else f"{SESSIONS}/{session_id}"


def batches_path(
    session_id: str,
    stream: str,
    start: int,
    end: int,
    crc: int | None,
    end_crc: int | None,
    *,
    records: int | None = None,
    pending: int = 0,
) -> str:
    """Return the path that ships bytes start to end of a stream.

    crc and end_crc are the CRC-32 of the up to 4 KiB of the stream before start and before end; the server compares crc
    with the end_crc that it stored with the batch before; None: not known. records is how many records of the journal
    the batch stands for, pending how many are written behind them.
    """
    given = {"crc": crc, "end_crc": end_crc, "records": records, "pending": pending or None}
    query = "".join(f"&{name}={value}" for name, value in given.items() if value is not None)
    return session_path(session_id, f"batches?stream={stream}&from={start}&to={end}{query}")
