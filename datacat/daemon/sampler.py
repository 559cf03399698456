"""Look into a silent app: when a sample is due, ask for stacks, and take what came. Of the daemon's main thread."""

import time
from pathlib import Path

from datacat.daemon import diagnosis, dossier
from datacat.daemon.diagnosis import Sample
from datacat.daemon.dossier import Dossier
from datacat.daemon.pyspy import PySpy
from datacat.daemon.stackfile import EMPTY_ABOVE_BYTES, StackFile
from datacat.host import condition
from datacat.host.process import Target
from datacat.wire import hangs
from datacat.wire.layout import Beat


class Sampler:
    """Owns what was seen of one app since it fell silent. Nothing here waits.

    way is a word of hangs.STACKS_WORDS or a signal's name: off asks for nothing, thread sends no signal.
    """

    def __init__(self, folder: Path, target: Target | None, *, way: str, py_spy: bool) -> None:
        self.samples: list[Sample] = []
        self._target = target
        self._way = way
        self._file = StackFile(folder)
        self._py_spy = PySpy() if py_spy and way != "off" else None
        self._silent_from_ns = 0
        self._spied_at = 0
        self._passed = 0
        self._asked = False

    def due_ns(self, silent_from_ns: int, points_s: tuple[float, ...], lead_s: float) -> int | None:
        """Return the awake time of the next look that matters; None when all are done."""
        passed, asked = (self._passed, self._asked) if silent_from_ns == self._silent_from_ns else (0, False)
        if passed >= len(points_s):
            return None
        return silent_from_ns + int((points_s[passed] - (0.0 if asked else lead_s)) * 1e9)

    def look(self, now_ns: int, silent_from_ns: int, beat: Beat, points_s: tuple[float, ...], lead_s: float) -> None:
        """Do what is due after this much silence. Stacks that are older than the last heartbeat tell nothing."""
        if self._target is None:
            return
        if silent_from_ns != self._silent_from_ns:
            self.reset()
            self._silent_from_ns = silent_from_ns
        silent_s = (now_ns - silent_from_ns) / 1e9
        passed = sum(silent_s >= point_s for point_s in points_s)
        if passed > self._passed:
            asked = self._asked
            self._passed, self._asked = passed, False
            self._take(self._target, now_ns, beat.unix_us)
            if not (asked or self.samples[-1].threads):
                self._spy(self._target, len(self.samples) - 1)  # we came too late to ask before
        elif passed < len(points_s) and not self._asked and silent_s >= points_s[passed] - lead_s:
            self._asked = True
            self._ask(self._target, now_ns, beat)

    def dossier(self, *, writes: bool) -> Dossier | None:
        """Return what the samples tell; None when there are none. writes: the app has a thread that writes stacks."""
        self._collect()
        return dossier.of(self.samples, writes=writes and self._has_room())

    def reset(self) -> None:
        """Forget the samples: the app has beaten, or was held.

        A large file is emptied in any case: the app may get our signal from somebody else, and write each time.
        """
        if self.samples or self._file.size() > EMPTY_ABOVE_BYTES:
            self._file.skip()
        self.samples = []
        self._passed, self._asked, self._silent_from_ns = 0, False, 0
        if self._py_spy is not None:
            self._py_spy.close()  # what it tells is of a silence that is over

    def close(self) -> None:
        """End what still runs."""
        if self._py_spy is not None:
            self._py_spy.close()

    def _ask(self, target: Target, now_ns: int, beat: Beat) -> None:
        """Ask the app for its main thread's stack, unless it tells of all threads by itself."""
        if self._way == "off" or self._file.has_news(beat.unix_us):
            return
        handle = self._file.handle() if self._way != "thread" and self._has_room() else None
        if handle is not None and self._may_interrupt(target, now_ns, beat):
            sent = condition.ask_for_stacks(target.pid, target.start, handle.signal, handle.fd, self._file.path)
            if sent:
                return
        self._spy(target, len(self.samples))

    def _spy(self, target: Target, at: int) -> None:
        """Ask py-spy for the stacks of the look with that index, unless it is still busy with an earlier one."""
        self._collect()
        if self._py_spy is not None and self._py_spy.start(target.pid):
            self._spied_at = at

    def _collect(self) -> None:
        """Give what py-spy told to the look that it was asked for, which may be over by now; never to a later one."""
        if self._py_spy is None or self._spied_at >= len(self.samples):
            return
        stacks = self._py_spy.take()
        if stacks is not None and not self.samples[self._spied_at].threads:
            self.samples[self._spied_at] = self.samples[self._spied_at]._replace(
                source=stacks.source, threads=stacks.threads
            )

    def _may_interrupt(self, target: Target, now_ns: int, beat: Beat) -> bool:
        """Return whether the main thread may run the handler now.

        While it runs Python its stack is not whole (client/stacks.py). So it must have kept the interpreter's lock in C
        code for long, or be in the same wait as at the look before: a thread that only waits for that lock is not. A
        signal may end a wait of a C library early. So only an app without a thread that writes is asked for its first
        stack whatever it waits for; for all else the wait must be one that goes on.
        """
        seen, before = condition.condition(target.pid), self.samples[-1].condition if self.samples else None
        if seen is None or not seen.tasks or before is None or not before.tasks:
            return False
        main, was = seen.tasks[0], before.tasks[0]
        if main.state == "R":
            looks = [*self.samples, Sample(time.time_ns() // 1000, now_ns, seen)]
            return beat.writes and diagnosis.signs(looks, writes=True).gil_held
        waits = main.state == was.state == "S" and (main.switches, main.cpu_s) == (was.switches, was.cpu_s)
        first = not (beat.writes or self._told())
        return waits and (first or condition.is_undisturbed_by_signals(main))

    def _told(self) -> bool:
        return any(sample.threads for sample in self.samples)

    def _has_room(self) -> bool:
        return self._file.size() < hangs.MAX_STACKS_BYTES

    def _take(self, target: Target, now_ns: int, beat_us: int) -> None:
        source, threads = self._file.newest(beat_us) or ("", ())
        seen = condition.condition(target.pid)
        self.samples.append(Sample(time.time_ns() // 1000, now_ns, seen, source, threads))
        self._collect()
