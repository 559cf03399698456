"""What became of the records of a session's journal: how far its streams are acknowledged, and their sums. Pure."""

from collections.abc import Mapping

import msgspec


class Stream(msgspec.Struct, omit_defaults=True):
    """How far a stream is acknowledged: its offset, and the CRC-32 of the bytes before it when it was told.

    records counts the journal's records up to acked, shipped those that came on the wire for them (folded, so fewer),
    pending what was written behind them when the newest batch was cut.
    """

    acked: int
    end_crc: int | None = None
    records: int = 0
    shipped: int = 0
    pending: int = 0


def ledger(streams: Mapping[str, Stream], counts: Mapping[str, int]) -> dict[str, int]:
    """Return the sums over the streams of a session, as far as the server was told; drops stand beside, by reason.

    written = acknowledged + what was still on the app's machine when the newest batch was cut. shipped is what came on
    the wire for the acknowledged ones, folded. gaps and lost_bytes (of counts) tell what is missing of streams.
    """
    acknowledged = sum(stream.records for stream in streams.values())
    return {
        "written": acknowledged + sum(stream.pending for stream in streams.values()),
        "shipped": sum(stream.shipped for stream in streams.values()),
        "acknowledged": acknowledged,
        "gaps": counts.get("gaps", 0),
        "lost_bytes": counts.get("lost_bytes", 0),
    }
