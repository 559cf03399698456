"""A store of mixed content for the tests of its tools: segments of both kinds, deleted sessions, roll-ups, hints."""

from storing import opened, put, sid

from datacat.store.semi import SemiStore
from datacat.wire.records import Beat, Close, Event, Metric, StatePatch, Verdict

US = 1_000_000


def fill(store, sessions=12, batches=6, first=0):
    for number in range(first, first + sessions):
        t = (1000 + number) * US
        put(store, sid(number), opened(t=t, product=f"p{number % 3}", state={"n": number}), received_us=t)
        for k in range(batches):
            t += US
            records = [
                StatePatch(t, {"k": k % 3, "text": "x" * 50}),
                Event(t + 1, f"e{k}", level="error" if k % 2 else "info", data={"n": k}),
                Metric(t + 2, "load", k / 7),
                Beat(t + 3),
            ]
            put(store, sid(number), *records, received_us=t)
        if number % 2:
            put(store, sid(number), Close(t + 9, 0), received_us=t)
        elif number % 4 == 0:
            put(store, sid(number), Verdict(t + 9, "crashed", "signal", by="daemon"), stream="d", received_us=t)


def tend(store):
    while store.tend(10):
        pass


def make(root, **size):
    """Make a closed store in root: half of its ended sessions merged, one in six deleted, a batch in a new segment."""
    store = SemiStore(root, segment_bytes=8_000, quiet_s=0)
    fill(store, **size)
    tend(store)
    for number in range(0, size.get("sessions", 12), 6):
        store.drop(sid(number))
    tend(store)
    fill(store, 3, 2, first=100)
    store.close()
    return root
