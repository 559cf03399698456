"""An hour of sleeping, stopping and stalling, with simulated clocks: no hang is made up, and no real one is missed.

The app beats every second while it can. The daemon looks every 5 s, and when a silent app is due, as its loop does.
"""

import random
from itertools import pairwise

import pytest

from datacat.daemon import pace, watch
from datacat.daemon.watch import Gaps, Look, Watch
from datacat.wire.layout import Beat
from datacat.wire.records import Event, Verdict

S = 1_000_000_000
STEP_NS = 20_000_000
TICK_S = 5.0
HOLDS = ("stopped", "traced", "frozen")


class Machine:
    """A machine with an app and its daemon; its clocks run in steps of 20 ms."""

    def __init__(self, timeout_s, dice):
        self.timeout_s = timeout_s
        self.dice = dice
        self.awake_ns = 1000 * S
        self.unix_ns = 1_700_000_000 * S
        self.asleep_s = self.seen_asleep_s = 0.0
        self.held = ""
        self.hangs = False
        self.ran_ns = 0
        self.watch = Watch(judged_from_ns=self.awake_ns)
        self.next_beat_ns = self.next_tick_ns = self.awake_ns
        self.records = []
        self._beat()
        self._nap()

    def _beat(self):
        self.beat = Beat(self.awake_ns, self.unix_ns // 1000, self.timeout_s, on=True, paused=False, steady=True)
        every_s = min(1.0, self.timeout_s / 10)
        self.next_beat_ns = self.awake_ns + int(every_s * S * self.dice.uniform(0.95, 1.2))

    def _looks_ns(self):
        points_s = watch.points_s(self.watch, self.beat, 60, 5)
        from_ns = watch.silent_from_ns(self.watch, self.beat)
        dues = [from_ns + int(point_s * S) for point_s in points_s if self.watch.status == "active"]
        return [*(due for due in dues if due > self.looked_ns), watch.again_ns(self.watch, self.beat, self.looked_ns)]

    def _nap(self):
        self.looked_ns = self.awake_ns
        self.nap = pace.nap(self.next_tick_ns / S, [], self._looks_ns(), self.awake_ns / S, self.awake_ns)

    def _daemon(self):
        if self.awake_ns / S < min(self.nap.tick_s, self.nap.look_s):
            return
        late_s, paused_s = self.nap.late_s(self.awake_ns / S), self.nap.paused_s(self.awake_ns)
        if self.nap.is_over(self.awake_ns / S) or pace.is_due(self._looks_ns(), self.awake_ns):
            slept_s, self.seen_asleep_s = self.asleep_s - self.seen_asleep_s, self.asleep_s
            gaps = Gaps(late_s, slept_s, paused_s)
            seen = Look(self.awake_ns, self.unix_ns // 1000, self.beat, self.held, 60, 5, gaps)
            step = watch.step(self.watch, seen)
            self.watch = step.watch
            self.records += step.records
            self.next_tick_ns = self.awake_ns + int(TICK_S * S)
        self._nap()

    def run(self, seconds, *, daemon=True):
        until_ns = self.awake_ns + int(seconds * S)
        while self.awake_ns < until_ns:
            self.awake_ns += STEP_NS
            self.ran_ns += STEP_NS
            self.unix_ns += STEP_NS
            if not self.hangs and not self.held and self.awake_ns >= self.next_beat_ns:
                self._beat()
            if daemon:
                self._daemon()

    def _wakes(self):
        """It takes some time until the app runs again; the daemon may be first."""
        self.next_beat_ns = max(self.next_beat_ns, self.awake_ns + int(self.dice.uniform(0, 0.15) * S))
        if self.dice.random() < 0.5:
            self.nap = self.nap._replace(tick_s=min(self.nap.tick_s, self.awake_ns / S + 0.02))

    # --- what may happen to it

    def sleep(self):
        seconds = self.dice.choice((1.5, 20, 600, 3600))
        self.asleep_s += seconds
        self.unix_ns += int(seconds * S)
        self._wakes()

    def pause(self):
        """The virtual machine stands still; its clocks go on."""
        self.awake_ns += int(self.dice.choice((0.4, 0.8, 5, 90, 1000)) * S)
        self.unix_ns = self.awake_ns + 1_699_999_000 * S
        self._wakes()

    def hold(self):
        self.held = self.dice.choice(HOLDS)
        self.run(self.dice.choice((1, 7, 120)))
        self.held = ""
        self._wakes()

    def hold_and_sleep(self):
        self.held = self.dice.choice(HOLDS)
        self.run(self.dice.uniform(0, 10))
        self.sleep()
        self.run(self.dice.uniform(0, 10))
        self.held = ""
        self._wakes()

    def set_the_clock(self):
        self.unix_ns += int(self.dice.choice((-86400, -60, 60, 86400)) * S)

    def stop_the_daemon(self):
        self.run(self.dice.choice((1, 10, 100)), daemon=False)

    def names(self):
        return [record.name for record in self.records if isinstance(record, Event)]


def things(machine):
    return [
        machine.sleep,
        machine.pause,
        machine.hold,
        machine.hold_and_sleep,
        machine.set_the_clock,
        machine.stop_the_daemon,
    ]


def an_hour(machine, seconds=3600):
    while machine.ran_ns < seconds * S:
        machine.run(machine.dice.expovariate(1 / 20))
        machine.dice.choice(things(machine))()
    machine.run(30)


def check_no_hang(seed, seconds):
    dice = random.Random(seed)
    machine = Machine(dice.choice((1.0, 2.0, 10.0, 60.0)), dice)
    an_hour(machine, seconds)
    names = machine.names()
    assert "application_appears_hung" not in names, f"seed {seed}"
    assert not any(isinstance(record, Verdict) and record.status == "hung" for record in machine.records)
    assert names.count("application_suspended") == names.count("application_resumed") > 0
    assert machine.watch.status == "active"
    assert slept_s(machine.records) == pytest.approx(machine.asleep_s, abs=0.1)


def slept_s(records):
    """Return how long the machine slept by what the records say: each sleep is told with its end."""
    events = [record for record in records if isinstance(record, Event)]
    told = [after.data["duration_s"] for one, after in pairwise(events) if (one.data or {}).get("reason") == "sleep"]
    return sum(told)


@pytest.mark.parametrize("seed", range(6))
def test_in_ten_minutes_of_sleep_and_wake_no_app_is_called_hung(seed):
    check_no_hang(seed, 600)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 140))
def test_in_an_hour_of_sleep_and_wake_no_app_is_called_hung(seed):
    check_no_hang(seed, 3600)


@pytest.mark.parametrize("seed", range(8))
def test_a_real_hang_in_between_is_found_in_time_and_its_length_is_net_of_sleep(seed):
    dice = random.Random(seed)
    machine = Machine(dice.choice((2.0, 10.0)), dice)
    an_hour(machine, 60)
    machine.hangs = True
    began_ns = machine.beat.awake_ns
    machine.run(machine.timeout_s + 2.5)
    assert machine.names()[-1] == "application_appears_hung"
    machine.sleep()
    machine.run(20)
    machine.hangs = False
    lasted_s = (machine.awake_ns - began_ns) / S
    machine.run(8)
    assert "application_recovered" in machine.names()
    (over,) = [record for record in machine.records if record.__class__ is Verdict and record.hang_s]
    assert lasted_s <= over.hang_s <= lasted_s + 6
    assert machine.watch.status == "active"
