"""The dossier of a hang: what was seen of a silent app as the data of an event, cut to fit into a record. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from datacat.daemon import diagnosis, dumps
from datacat.daemon.diagnosis import Sample, Signs
from datacat.daemon.dumps import Thread
from datacat.wire.lines import encode
from datacat.wire.records import CUT_MARK, MAX_RECORD_BYTES, Event
from datacat.wire.times import rfc3339

_STEPS = ((100, 100), (40, 60), (16, 40), (8, 25), (4, 15), (1, 10), (1, 3))
"""Threads and frames of each that are kept, one step after the other until the record fits; earlier samples less."""
_MAX_TEXT = 300


class Dossier(NamedTuple):
    """What samples say: the verdict and its sentence, and the samples themselves."""

    verdict: str
    sentence: str
    signs: Signs
    samples: tuple[Sample, ...]


def of(samples: Sequence[Sample], *, writes: bool) -> Dossier | None:
    """Return the dossier of samples, oldest first; None when there are none. writes: see diagnosis.signs()."""
    if not samples:
        return None
    kept = _with_stacks(samples)
    told = diagnosis.signs(samples, writes=writes)
    what = diagnosis.verdict(told)
    return Dossier(what, diagnosis.explain(what, told, kept), told, kept)


def put(event: Event, dossier: Dossier) -> None:
    """Put a dossier into an event: its message, its data, and the main thread's stack as its stacktrace."""
    newest = dossier.samples[-1]
    base = dict(event.data or {})
    event.message = f"{event.message}: {dossier.sentence}" if event.message else dossier.sentence
    for at, (threads, frames) in enumerate(_STEPS):
        main = diagnosis.main_frames(newest.threads)[-frames:]
        event.stacktrace = dumps.traceback(_short(frame) for frame in main) or None
        event.data = base | _data(dossier, threads, frames)
        if at:
            event.data["cut"] = CUT_MARK
        if len(encode(event)) <= MAX_RECORD_BYTES:
            return


def _data(dossier: Dossier, threads: int, frames: int) -> dict[str, Any]:
    newest, told = dossier.samples[-1], dossier.signs
    data: dict[str, Any] = {
        "verdict": dossier.verdict,
        "sentence": dossier.sentence,
        "samples": [
            _sample(dossier.samples, at, max(1, threads // 2), max(3, frames // 2))
            for at in range(len(dossier.samples))
        ],
        "threads": _threads(newest, threads, frames),
        "threads_cut": max(0, len(newest.threads) - threads) or None,
        "stacks_by": newest.source or None,
        "cpu_share": _rounded(told.share),
        "main_cpu_share": _rounded(told.main_share),
        "major_faults_per_s": round(told.faults_per_s, 1),
    }
    seen = newest.condition
    if seen is not None:
        main = seen.tasks[0] if seen.tasks else None
        data |= {
            "state": seen.state or None,
            "cpu_s": round(seen.cpu_s, 3),
            "thread_count": seen.thread_count,
            "wait_channel": main.wait_channel or None if main else None,
            "syscall": main.syscall or None if main else None,
        }
    return {name: value for name, value in data.items() if value is not None}


def _sample(samples: Sequence[Sample], at: int, threads: int, frames: int) -> dict[str, Any]:
    sample = samples[at]
    before = samples[at - 1].condition if at else None
    data: dict[str, Any] = {"timestamp": rfc3339(sample.t_us), "stacks_by": sample.source or None}
    if (seen := sample.condition) is not None:
        main = seen.tasks[0] if seen.tasks else None
        data |= {
            "state": seen.state or None,
            "cpu_s": round(seen.cpu_s - before.cpu_s, 3) if before else None,
            "wait_channel": main.wait_channel or None if main else None,
        }
    data["threads"] = _threads(sample, threads, frames)
    return {name: value for name, value in data.items() if value is not None}


def _threads(sample: Sample, threads: int, frames: int) -> list[dict[str, Any]]:
    short = [thread._replace(frames=tuple(_short(frame) for frame in thread.frames)) for thread in sample.threads]
    return dumps.as_json(short, most=threads, frames=frames)


def _with_stacks(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return samples with those stacks again where none were written since: the app stood where it stood.

    That is so when it could not be asked again without disturbing it. A dump of more than 100 threads that the app did
    not help to write lacks the main one: it is that of the one before.
    """
    kept: list[Sample] = []
    main: Thread | None = None
    for sample in samples:
        known = kept[-1] if kept else None
        if not sample.threads and known is not None and known.threads:
            sample = sample._replace(source=known.source, threads=known.threads)  # noqa: PLW2901  the same moment
        if sample.threads and sample.threads[0].current:
            main = sample.threads[0]
        elif sample.threads and main is not None:
            sample = sample._replace(threads=(main, *sample.threads))  # noqa: PLW2901  the same moment
        kept.append(sample)
    return tuple(kept)


def _short(frame: dumps.Frame) -> dumps.Frame:
    return frame._replace(file=frame.file[-_MAX_TEXT:], function=frame.function[:_MAX_TEXT])


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)
