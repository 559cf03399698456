"""Look into a silent app: when a sample is due, ask for stacks, and take what came. Of the daemon's main thread."""

import time
from pathlib import Path

from datacat.daemon import dossier
from datacat.daemon.diagnosis import Sample
from datacat.daemon.dossier import Dossier
from datacat.daemon.pyspy import PySpy
from datacat.daemon.stackfile import StackFile
from datacat.host import condition
from datacat.host.process import Target
from datacat.wire import hangs


class Sampler:
    """Owns what was seen of one app since it fell silent. Nothing here waits.

    way is a word of hangs.STACKS_WORDS or a signal's name: off asks for nothing, timer sends no signal. steady: the app
    has a thread that writes its stacks while it can.
    """

    def __init__(self, folder: Path, target: Target | None, *, way: str, py_spy: bool) -> None:
        self.samples: list[Sample] = []
        self._target = target
        self._way = way
        self._file = StackFile(folder)
        self._py_spy = PySpy() if py_spy and way != "off" else None
        self._silent_from_ns = 0
        self._passed = 0
        self._asked = False

    def due_ns(self, silent_from_ns: int, points_s: tuple[float, ...], lead_s: float) -> int | None:
        """Return the awake time of the next look that matters; None when all are done."""
        passed, asked = (self._passed, self._asked) if silent_from_ns == self._silent_from_ns else (0, False)
        if passed >= len(points_s):
            return None
        return silent_from_ns + int((points_s[passed] - (0.0 if asked else lead_s)) * 1e9)

    def look(self, now_ns: int, silent_from_ns: int, beat_us: int, points_s: tuple[float, ...], lead_s: float) -> None:
        """Do what is due after this much silence. beat_us: the last heartbeat in Unix us; older stacks tell nothing."""
        if self._target is None:
            return
        if silent_from_ns != self._silent_from_ns:
            self.reset()
            self._silent_from_ns = silent_from_ns
        silent_s = (now_ns - silent_from_ns) / 1e9
        passed = sum(silent_s >= point_s for point_s in points_s)
        if passed > self._passed:
            self._passed, self._asked = passed, False
            self._take(self._target, now_ns, beat_us)
        elif passed < len(points_s) and not self._asked and silent_s >= points_s[passed] - lead_s:
            self._asked = True
            self._ask(self._target, beat_us)

    def dossier(self, *, steady: bool) -> Dossier | None:
        """Return what the samples tell; None when there are none."""
        return dossier.of(self.samples, steady=steady)

    def reset(self) -> None:
        """Forget the samples: the app has beaten, or was held."""
        if self.samples:
            self._file.skip()
        self.samples = []
        self._passed, self._asked, self._silent_from_ns = 0, False, 0

    def close(self) -> None:
        """End what still runs."""
        if self._py_spy is not None:
            self._py_spy.close()

    def _ask(self, target: Target, beat_us: int) -> None:
        """Ask the app for its stacks, unless it tells them by itself.

        A signal may end a wait of a C library early. So one that is not needed for the first stacks is only sent when
        the main thread is where that cannot happen.
        """
        if self._way == "off" or self._file.has_news(beat_us):
            return
        told = any(sample.threads for sample in self.samples)
        if told and not _is_undisturbed(target):
            return
        handle = self._file.handle() if self._way != "timer" else None
        if handle is not None and self._file.size() < hangs.MAX_STACKS_BYTES:
            sent = condition.ask_for_stacks(target.pid, target.start, handle.signal, handle.fd, self._file.path)
            if sent:
                return
        if self._py_spy is not None and not told:
            self._py_spy.start(target.pid)

    def _take(self, target: Target, now_ns: int, beat_us: int) -> None:
        stacks = self._file.newest(beat_us)
        if stacks is None and self._py_spy is not None:
            stacks = self._py_spy.take()
        source, threads = stacks if stacks is not None else ("", ())
        seen = condition.condition(target.pid)
        self.samples.append(Sample(time.time_ns() // 1000, now_ns, seen, source, threads))


def _is_undisturbed(target: Target) -> bool:
    seen = condition.condition(target.pid)
    return seen is not None and bool(seen.tasks) and condition.is_undisturbed_by_signals(seen.tasks[0])
