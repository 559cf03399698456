"""When a silent app is asked, and when not: the signal is the last way."""

import os

import pytest
from daemon_helpers import now_us

from datacat.daemon import sampler as module
from datacat.daemon.sampler import Sampler
from datacat.host.condition import Condition, Task
from datacat.host.process import Target

S = 1_000_000_000
POINTS, LEAD = (5.0, 58.0, 59.0, 60.0), 0.1
DUMP = 'Thread 0x01 (most recent call first):\n  File "app.py", line 5 in wait\n'
SLEEPS = Task(7, "app", "S", 0.0, 0, "hrtimer_nanosleep", "clock_nanosleep")


class Asked(list):
    """Whom the signal was sent to; what the app then writes."""

    writes = DUMP
    task = SLEEPS
    sure = True

    def ask_for_stacks(self, pid, start, signal, fd, path):
        self.append((pid, start, signal, fd))
        if self.sure:
            with path.open("a") as file:
                file.write(self.writes)
        return self.sure

    def condition(self, pid):
        return Condition("", self.task.state, 0.0, 1, 0, (self.task,))


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


def look(it, *seconds, beat_us=None):
    for second in seconds:
        it.look(100 * S + int(second * S), 100 * S, beat_us or now_us() - 5_000_000, POINTS, LEAD)
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
    assert look(it, 4.0) == []
    assert asked == []
    assert look(it, 4.9) == []
    assert asked == [(7, 70, 23, 1000)]
    assert look(it, 4.95, 5.0, 6.0, 50.0) == ["signal"]
    assert len(asked) == 1


def test_who_sleeps_is_not_disturbed_for_more_of_the_same(folder, asked):
    it = sampler(folder)
    assert look(it, 4.9, 5.0, 57.9, 58.0, 58.9, 59.0, 59.9, 60.0) == ["signal", "", "", ""]
    assert len(asked) == 1


def test_who_computes_is_asked_for_every_sample(folder, asked):
    asked.task = SLEEPS._replace(state="R", wait_channel="", syscall="")
    it = sampler(folder)
    assert look(it, 4.9, 5.0, 57.9, 58.0, 58.9, 59.0, 59.9, 60.0) == ["signal"] * 4
    assert len(asked) == 4


@pytest.mark.parametrize("way", ["off", "timer"])
def test_switched_off_nobody_is_signalled(folder, asked, way):
    assert look(sampler(folder, way), 4.9, 5.0) == [""]
    assert asked == []


def test_without_the_first_line_or_with_a_full_file_nobody_is_signalled(folder, asked):
    (folder / "stacks").write_text("")
    assert look(sampler(folder), 4.9, 5.0) == [""]
    (folder / "stacks").write_text("# signal 23 fd 1000\n" + "x" * 1_000_000)
    os.utime(folder / "stacks", (1000, 1000))
    look(sampler(folder), 4.9)
    assert asked == []


def test_several_samples_that_were_missed_are_one(folder, asked):
    assert look(sampler(folder), 60.0) == [""]


def test_a_new_silence_begins_anew_and_old_stacks_do_not_count(folder, asked):
    it = sampler(folder)
    look(it, 4.9, 5.0)
    assert it.due_ns(100 * S, POINTS, LEAD) == 100 * S + int(57.9 * S)
    assert it.due_ns(200 * S, POINTS, LEAD) == 200 * S + int(4.9 * S)
    it.look(200 * S + 5 * S, 200 * S, now_us(), POINTS, LEAD)
    assert len(it.samples) == 1
    look(it, 60.0)
    assert it.due_ns(100 * S, POINTS, LEAD) is None
    it.reset()
    assert it.samples == []
    assert it.dossier(steady=True) is None


def test_without_a_process_nothing_is_looked_at(folder, asked):
    it = Sampler(folder, None, way="auto", py_spy=False)
    it.look(200 * S, 100 * S, 0, POINTS, LEAD)
    assert it.samples == []


def test_py_spy_is_asked_when_nothing_else_tells(folder, asked, monkeypatch):
    started = []

    class Spy:
        start = started.append

        def take(self):
            return ("py-spy", ()) if started else None

        def close(self):
            started.append("closed")

    monkeypatch.setattr(module, "PySpy", Spy)
    asked.sure = False
    it = Sampler(folder, Target(7, 70), way="auto", py_spy=True)
    assert look(it, 4.9, 5.0) == ["py-spy"]
    it.close()
    assert started == [7, "closed"]
