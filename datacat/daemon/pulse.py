"""One app's heartbeats as its daemon judges them: what they say, and what is seen of the app while they are missing."""

import time
from pathlib import Path

from datacat import host
from datacat.daemon import dossier, watch
from datacat.daemon.config import Config
from datacat.daemon.sampler import Sampler
from datacat.host import condition
from datacat.host.process import Target
from datacat.wire import hangs
from datacat.wire.layout import Beat
from datacat.wire.records import HUNG_EVENT, SLOW_EVENT, Event, Verdict


class Pulse:
    """Owns the watch and the samples of one app; of the daemon's main thread."""

    def __init__(self, folder: Path, target: Target | None, config: Config, last: Verdict | None, beat: Beat) -> None:
        """Go on where an earlier daemon ended, with its last verdict and what the app has beaten since."""
        timeout_s = config.heartbeat_timeout_seconds
        self.watch = watch.taken_over(last, beat, host.awake_ns(), time.time_ns() // 1000, timeout_s)
        self._target = target
        self._timeout_s = config.heartbeat_timeout_seconds
        self._slow_s = config.slow_seconds
        self._sampler = Sampler(folder, target, way=config.hang_stacks, py_spy=config.py_spy)
        self._again_ns: int | None = None

    def judge(self, beat: Beat, now_us: int, gaps: watch.Gaps) -> watch.Step:
        """Look into the app when it is silent, then say what its heartbeats say, with what was seen."""
        now_ns = host.awake_ns()
        held = condition.held(self._target.pid) if self._target else ""
        silent = not held and self._sample(beat, now_ns)
        look = watch.Look(now_ns, now_us, beat, held, self._timeout_s, self._slow_s, gaps)
        step = watch.step(self.watch, look)
        for record in step.records:
            if isinstance(record, Event) and record.name in (HUNG_EVENT, SLOW_EVENT):
                if (found := self._sampler.dossier(writes=beat.writes)) is not None:
                    dossier.put(record, found)
            elif isinstance(record, Verdict) and record.status == "hung":
                record.detail = next(each.message for each in step.records if isinstance(each, Event))
        self.watch = step.watch
        self._again_ns = watch.again_ns(step.watch, beat, now_ns)
        if not silent or step.hung:
            self._sampler.reset()
        return step

    def next_look_ns(self, beat: Beat) -> int | None:
        """Return the awake time at which the app is to be looked at unless it beats; None when that can wait."""
        deadline_ns = watch.deadline_ns(self.watch, beat, self._timeout_s)
        sample_ns = None
        if deadline_ns is not None and self._target is not None:
            sample_ns = self._sampler.due_ns(watch.silent_from_ns(self.watch, beat), *self._points_s(beat))
        due = (deadline_ns, sample_ns, self._again_ns)
        return min((each for each in due if each is not None), default=None)

    def close(self) -> None:
        """Let go of what looking into the app took."""
        self._sampler.close()

    def _sample(self, beat: Beat, now_ns: int) -> bool:
        """Take the samples that are due; whether the app has been silent for so long that samples matter."""
        silence_ns = watch.silent_ns(self.watch, beat, now_ns)
        points_s, lead_s = self._points_s(beat)
        if silence_ns is None or self.watch.status != "active" or silence_ns / 1e9 < points_s[0] - lead_s:
            return False
        self._sampler.look(now_ns, watch.silent_from_ns(self.watch, beat), beat, points_s, lead_s)
        return True

    def _points_s(self, beat: Beat) -> tuple[tuple[float, ...], float]:
        """Return after how much silence the app is sampled, and how long before that it is asked."""
        points_s = watch.points_s(self.watch, beat, self._timeout_s, self._slow_s)
        return points_s, hangs.lead_s(points_s[-1])
