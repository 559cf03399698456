"""The dossier of a hang as people read it."""

import pytest

from datacat.cli.dossier import lines


def thread(name, *functions, **members):
    frames = [{"file": "app.py", "line": at, "function": function} for at, function in enumerate(functions, 1)]
    return {"name": name, "id": "7f", "current": False, "frames": frames, **members}


def test_the_verdicts_facts_come_first_then_the_stacks_the_newest_call_last():
    data = {
        "verdict": "waiting on a lock",
        "state": "S",
        "wait_channel": "futex_do_wait",
        "main_cpu_share": 0.004,
        "cpu_share": 0.5,
        "thread_count": 2,
        "samples": [{}, {}, {}],
        "stacks_by": "thread",
        "threads": [thread("MainThread", "<module>", "pay", current=True), thread(None, "run")],
    }
    assert lines(data) == [
        "state S, waits in futex_do_wait, CPU 0 %, threads 2, samples 3, stacks by thread",
        "MainThread (current):",
        "  app.py:1 in <module>",
        "  app.py:2 in pay",
        "thread 7f:",
        "  app.py:1 in run",
    ]


def test_threads_that_stand_alike_are_told_once_and_long_stacks_by_their_end():
    deep = [f"f{number}" for number in range(20)]
    data = {
        "threads": [thread("MainThread", *deep), *(thread(f"worker {n}", "run") for n in range(3))],
        "threads_cut": 4,
    }
    shown = lines(data)
    assert shown[:3] == ["MainThread:", "  ... 8 calls before; --json shows all", "  app.py:9 in f8"]
    assert shown[-3:] == [
        "3 threads alike: worker 0, worker 1, worker 2:",
        "  app.py:1 in run",
        "... and 4 more threads",
    ]


@pytest.mark.parametrize(
    "data", [{}, {"threads": None}, {"threads": "many"}, {"threads": ["x"]}, {"verdict": "guilty"}, {"threads": []}]
)
def test_other_data_is_no_dossier(data):
    assert lines(data) == []


def test_what_anybody_wrote_ends_nothing():
    odd = {
        "threads": [{"name": 5, "frames": [{"file": 3, "line": "x"}, 7]}, {"frames": "all"}],
        "verdict": 1,
        "samples": 7,
    }
    assert lines(odd) == ["5:", "  3:x in None", "thread None:", "  (no Python frame)"]
