"""When a silent app is asked, and when not: the signal is the last way."""

import os

import pytest
from daemon_helpers import now_us

from datacat.daemon import sampler as module
from datacat.daemon.dumps import Frame, Thread
from datacat.daemon.sampler import Sampler
from datacat.daemon.stackfile import Stacks
from datacat.host.condition import Condition, Task
from datacat.host.process import Target
from datacat.wire.layout import Beat

S = 1_000_000_000
POINTS, LEAD = (5.0, 58.0, 59.0, 60.0), 0.1
DUMP = 'Thread 0x01 (most recent call first):\n  File "app.py", line 5 in wait\n'
OWN = 'Stack (most recent call first):\n  File "app.py", line 5 in wait\n'
SLEEPS = Task(7, "app", "S", 0.0, 0, "hrtimer_nanosleep", "clock_nanosleep")


class Asked(list):
    """Whom the signal was sent to; what the app then writes."""

    writes = OWN
    task = SLEEPS
    sure = True
    polls_per_s = 0
    wakes_per_s = 0
    second = 0.0

    def ask_for_stacks(self, pid, start, signal, fd, path):
        self.append((pid, start, signal, fd))
        if self.sure:
            with path.open("a") as file:
                file.write(self.writes)
        return self.sure

    def condition(self, pid):
        main = self.task and self.task._replace(switches=int(self.wakes_per_s * self.second))
        ours = SLEEPS._replace(
            tid=8, switches=int(self.polls_per_s * self.second), wait_channel="futex", syscall="futex"
        )
        return Condition("", "S", 0.0, 2, 0, (main, ours) if main else ())


@pytest.fixture
def asked(monkeypatch):
    made = Asked()
    monkeypatch.setattr(module.condition, "ask_for_stacks", made.ask_for_stacks)
    monkeypatch.setattr(module.condition, "condition", made.condition)
    return made


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "stacks").write_text("# signal 23 fd 1000\n")
    os.utime(tmp_path / "stacks", (1000, 1000))
    return tmp_path


def append(folder, text=DUMP):
    with (folder / "stacks").open("a") as file:
        file.write(text)


def sampler(folder, way="auto"):
    return Sampler(folder, Target(7, 70), way=way, py_spy=False)


def beat(ago_us=5_000_000, *, writes=False):
    return Beat(100 * S, now_us() - ago_us, 60.0, on=True, paused=False, writes=writes)


def look(it, *seconds, writes=False):
    for second in seconds:
        Asked.second = second
        it.look(100 * S + int(second * S), 100 * S, beat(writes=writes), POINTS, LEAD)
    return [sample.source for sample in it.samples]


def test_what_the_app_wrote_by_itself_is_taken_and_nobody_is_signalled(folder, asked):
    it = sampler(folder)
    append(folder, "# at 5\n" + DUMP)
    assert look(it, 4.95, 5.0) == ["thread"]
    append(folder, "# at 5\n" + DUMP)
    assert look(it, 57.9, 58.0) == ["thread", "thread"]
    assert asked == []


def test_where_nothing_was_written_the_signal_asks_for_it_just_before(folder, asked):
    it = sampler(folder)
    assert look(it, 4.0, 4.9, 5.0, 6.0, 57.0) == [""]
    assert asked == []  # where it waits now it may not have waited before
    assert look(it, 57.9) == [""]
    assert asked == [(7, 70, 23, 1000)]
    assert look(it, 57.95, 58.0, 58.5) == ["", "signal"]
    assert len(asked) == 1


def test_who_has_run_since_the_look_before_is_not_asked(folder, asked):
    asked.wakes_per_s = 20  # it waits for the interpreter's lock, and runs Python when it has it
    assert look(sampler(folder), 4.9, 5.0, 57.9, 58.0, 58.9, 59.0, 59.9, 60.0) == [""] * 4
    assert asked == []


def test_who_sleeps_is_not_disturbed_for_more_of_the_same(folder, asked):
    it = sampler(folder)
    assert look(it, 4.9, 5.0, 57.9, 58.0, 58.9, 59.0, 59.9, 60.0) == ["", "signal", "", ""]
    assert len(asked) == 1


def test_who_waits_where_a_signal_ends_nothing_is_asked_for_every_sample(folder, asked):
    asked.task = SLEEPS._replace(wait_channel="futex_do_wait", syscall="futex")
    it = sampler(folder)
    assert look(it, 4.9, 5.0, 57.9, 58.0, 58.9, 59.0, 59.9, 60.0) == ["", "signal", "signal", "signal"]
    assert len(asked) == 3


@pytest.mark.parametrize("state", ["R", "D", "T"])
def test_who_runs_or_cannot_answer_is_not_asked(folder, asked, state):
    asked.task = SLEEPS._replace(state=state, wait_channel="", syscall="")
    assert look(sampler(folder), 4.9, 5.0, 57.9, 58.0, 58.9, 59.0, 59.9, 60.0) == [""] * 4
    assert asked == []


@pytest.mark.parametrize(
    ("writes", "polls_per_s", "sources"),
    [
        (True, 190, ["", "signal", "signal", "signal"]),
        (True, 10, [""] * 4),
        (False, 190, [""] * 4),
    ],
)
def test_who_runs_is_asked_once_it_is_seen_to_keep_the_lock_from_our_thread(
    folder, asked, writes, polls_per_s, sources
):
    asked.task = SLEEPS._replace(state="R", wait_channel="", syscall="")
    asked.polls_per_s = polls_per_s
    assert look(sampler(folder), 4.9, 5.0, 57.9, 58.0, 58.9, 59.0, 59.9, 60.0, writes=writes) == sources
    assert len(asked) == sources.count("signal")


def test_where_the_system_tells_nothing_of_threads_nobody_is_asked(folder, asked):
    asked.task = None
    assert look(sampler(folder), 4.9, 5.0, 57.9, 58.0) == ["", ""]
    assert asked == []


def test_an_app_with_a_thread_that_writes_is_only_asked_where_that_cannot_disturb_it(folder, asked):
    it = sampler(folder)
    assert look(it, 4.9, 5.0, writes=True) == [""]
    assert asked == []
    asked.task = SLEEPS._replace(wait_channel="futex_do_wait", syscall="futex")
    assert look(it, 57.9, 58.0, writes=True) == ["", "signal"]
    assert len(asked) == 1


def test_a_large_file_is_emptied_though_nobody_asked_for_it(folder, asked):
    it = sampler(folder)
    append(folder, "x" * 300_000)
    it.reset()
    assert (folder / "stacks").read_text() == "# signal 23 fd 1000\n"


@pytest.mark.parametrize("way", ["off", "thread"])
def test_switched_off_nobody_is_signalled(folder, asked, way):
    assert look(sampler(folder, way), 4.9, 5.0, 57.9, 58.0) == ["", ""]
    assert asked == []


def test_without_the_first_line_or_with_a_full_file_nobody_is_signalled(folder, asked):
    (folder / "stacks").write_text("")
    assert look(sampler(folder), 4.9, 5.0, 57.9, 58.0) == ["", ""]
    (folder / "stacks").write_text("# signal 23 fd 1000\n")
    os.utime(folder / "stacks", (1000, 1000))
    it = sampler(folder)
    look(it, 4.9, 5.0)
    append(folder, "x" * 1_000_000)
    os.utime(folder / "stacks", (1000, 1000))
    look(it, 57.9, 58.0)
    assert asked == []


def test_several_samples_that_were_missed_are_one(folder, asked):
    assert look(sampler(folder), 60.0) == [""]


def test_a_new_silence_begins_anew_and_old_stacks_do_not_count(folder, asked):
    it = sampler(folder)
    look(it, 4.9, 5.0)
    assert it.due_ns(100 * S, POINTS, LEAD) == 100 * S + int(57.9 * S)
    assert it.due_ns(200 * S, POINTS, LEAD) == 200 * S + int(4.9 * S)
    it.look(200 * S + 5 * S, 200 * S, beat(0), POINTS, LEAD)
    assert len(it.samples) == 1
    look(it, 60.0)
    assert it.due_ns(100 * S, POINTS, LEAD) is None
    it.reset()
    assert it.samples == []
    assert it.dossier(writes=True) is None


def test_without_a_process_nothing_is_looked_at(folder, asked):
    it = Sampler(folder, None, way="auto", py_spy=False)
    it.look(200 * S, 100 * S, beat(), POINTS, LEAD)
    assert it.samples == []


class Spy:
    """Stands for py-spy: each look finds the main thread a line further."""

    def __init__(self):
        self.asked = []
        self.runs = False
        self.late = False

    def start(self, pid):
        if self.runs:
            return False
        self.asked.append(pid)
        self.runs = True
        return True

    def take(self):
        if self.late:
            return None
        runs, self.runs = self.runs, False
        frames = (Frame("app.py", len(self.asked), "wait"),)
        return Stacks("py-spy", (Thread("7", "MainThread", True, frames),)) if runs else None

    def close(self):
        self.runs = False


@pytest.fixture
def spied(folder, monkeypatch):
    monkeypatch.setattr(module, "PySpy", Spy)
    return Sampler(folder, Target(7, 70), way="auto", py_spy=True)


def test_py_spy_is_asked_for_each_look_for_which_the_app_writes_nothing(folder, asked, spied):
    asked.sure = False
    assert look(spied, 4.9, 5.0, 57.9, 58.0) == ["py-spy", "py-spy"]
    append(folder, "# at 59\n" + DUMP)
    assert look(spied, 58.9, 59.0) == ["py-spy", "py-spy", "thread"]
    assert look(spied, 59.9, 60.0) == ["py-spy", "py-spy", "thread", "py-spy"]
    assert [sample.threads[0].frames[-1].line for sample in spied.samples] == [1, 2, 5, 3]


def lines(it):
    return [sample.threads[0].frames[-1].line if sample.threads else None for sample in it.samples]


def test_what_py_spy_tells_too_late_is_still_of_the_look_that_it_was_asked_for(asked, spied):
    asked.sure = False
    spied._py_spy.late = True
    assert look(spied, 4.9, 5.0, 57.9, 58.0) == ["", ""]
    assert len(spied._py_spy.asked) == 1  # one at a time
    spied._py_spy.late = False
    assert look(spied, 58.9, 59.0) == ["py-spy", "", "py-spy"]
    assert lines(spied) == [1, None, 2]


def test_what_py_spy_told_beside_the_app_itself_is_of_no_later_look(folder, asked, spied):
    asked.sure = False
    spied._py_spy.late = True
    look(spied, 4.9)
    append(folder, "# at 5\n" + DUMP)
    assert look(spied, 5.0) == ["thread"]
    spied._py_spy.late = False
    assert look(spied, 57.9, 58.0) == ["thread", "py-spy"]
    assert lines(spied) == [5, 2]


def test_a_daemon_that_comes_too_late_to_ask_asks_at_the_look_itself(asked, spied):
    asked.sure = False
    spied._py_spy.late = True
    assert look(spied, 5.0, 58.0) == ["", ""]
    spied._py_spy.late = False
    assert [sample.source for sample in spied.dossier(writes=False).samples] == ["py-spy", "py-spy"]
    assert len(spied._py_spy.asked) == 1


def test_what_py_spy_tells_of_a_silence_that_is_over_is_not_told_of_the_next(asked, spied):
    asked.sure = False
    look(spied, 4.9)
    spied.reset()
    assert look(spied, 5.0) == [""]
