"""What a silent app does: a table of signs and verdicts, and what samples tell."""

import pytest

from datacat.daemon import diagnosis
from datacat.daemon.diagnosis import Sample, Signs, explain, signs, verdict
from datacat.daemon.dumps import Frame, Thread
from datacat.host.condition import Condition, Task


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (Signs(), "unknown"),
        (Signs(main_share=1.0, share=1.0), "busy loop"),
        (Signs(share=0.9), "busy loop"),
        (Signs(main_share=0.0, share=0.9, waits="waiting on a lock"), "waiting on a lock"),
        (Signs(main_share=0.0, waits="waiting on a lock"), "waiting on a lock"),
        (Signs(main_share=0.0, waits="waiting on I/O"), "waiting on I/O"),
        (Signs(main_share=0.0, waits="sleeping"), "sleeping"),
        (Signs(main_share=0.0, waits="waiting for a child process"), "waiting for a child process"),
        (Signs(gil_held=True, main_share=1.0), "GIL held in C code"),
        (Signs(gil_held=True, main_share=0.0, waits="sleeping"), "GIL held in C code"),
        (Signs(uninterruptible=True, gil_held=True), "waiting on I/O"),
        (Signs(faults_per_s=500.0, gil_held=True, uninterruptible=True), "swapping"),
        (Signs(faults_per_s=20.0, main_share=0.9), "busy loop"),
        (Signs(runs=True, main_share=0.01), "waiting for a CPU"),
        (Signs(runs=True, main_share=0.2), "busy loop"),
        (Signs(runs=False, main_share=0.2, waits="sleeping"), "sleeping"),
        (Signs(runs=True), "unknown"),
        (Signs(held="stopped", main_share=1.0), "stopped"),
        (Signs(held="frozen", faults_per_s=500.0), "stopped"),
    ],
)
def test_the_signs_decide(told, words):
    assert verdict(told) == words
    assert words in diagnosis.VERDICTS


def task(tid=7, state="S", cpu_s=0.0, switches=0, channel="", syscall=""):
    return Task(tid, "x", state, cpu_s, switches, channel, syscall)


def stack(line=3, function="work", file="app.py", other=()):
    return (Thread("1", "MainThread", True, (Frame(file, line, function),)), *other)


def samples(first, last, *, sources=("thread", "thread", "thread"), faults=(0, 0), threads=None, state=None):
    """Return three samples a second apart, from the tasks of the first and of the last one."""
    cpu = [sum(each.cpu_s for each in tasks) for tasks in (first, last)]
    conditions = [
        Condition("", state or first[0].state, cpu[0], len(first), faults[0], tuple(first)),
        Condition("", state or first[0].state, cpu[0], len(first), faults[0], tuple(first)),
        Condition("", state or last[0].state, cpu[1], len(last), faults[1], tuple(last)),
    ]
    threads = threads or [stack()] * 3
    return [
        Sample(at, at * 1_000_000_000, conditions[at], sources[at], threads[at] if sources[at] else ())
        for at in range(3)
    ]


@pytest.mark.parametrize(
    ("channel", "syscall", "waits"),
    [
        ("futex_do_wait", "futex", "waiting on a lock"),
        ("locks_lock_inode_wait", "flock", "waiting on a lock"),
        ("hrtimer_nanosleep", "clock_nanosleep", "sleeping"),
        ("do_wait", "wait4", "waiting for a child process"),
        ("unix_stream_read_generic", "recvfrom", "waiting on I/O"),
        ("do_epoll_wait", "", "waiting on I/O"),
        ("", "futex", "waiting on a lock"),
        ("", "nanosleep", "sleeping"),
        ("", "read", "waiting on I/O"),
        ("", "", "unknown"),
    ],
)
def test_a_waiting_main_thread_is_told_by_its_wait_channel_else_by_its_system_call(channel, syscall, waits):
    main = [task(channel=channel, syscall=syscall)]
    assert verdict(signs(samples(main, main), writes=True)) == waits


def test_without_any_of_that_the_innermost_frame_tells():
    told = [
        Sample(at, at * 10**9, Condition("", "", 0.0, 1, 0), "thread", stack(9, "select", "/x/selectors.py"))
        for at in range(3)
    ]
    assert verdict(signs(told, writes=True)) == "waiting on I/O"
    assert (
        verdict(signs([Sample(0, 0, None, "signal", stack(9, "wait", "C:\\py\\threading.py"))], writes=False))
        == "waiting on a lock"
    )
    assert verdict(signs([], writes=True)) == "unknown"


def test_time_used_by_the_main_thread_is_a_busy_loop_and_that_of_another_is_not():
    busy = signs(samples([task(state="R")], [task(state="R", cpu_s=1.9)]), writes=True)
    assert busy.main_share == pytest.approx(0.95)
    assert verdict(busy) == "busy loop"
    waits = [task(channel="futex_do_wait"), task(8, "R")]
    later = [waits[0], task(8, "R", cpu_s=2.0)]
    assert verdict(signs(samples(waits, later), writes=True)) == "waiting on a lock"


def shut_out(polls, sources=("", "", ""), *, writes=True, slow=(), main="hrtimer_nanosleep"):
    """Return the verdict on a main thread that sleeps in C, while another woke up so often within 2 s from a lock."""
    first = [task(channel=main), task(8, channel="futex_do_wait")]
    last = [task(channel=main), task(8, switches=polls, channel="futex_do_wait")]
    return verdict(signs([*slow, *samples(first, last, sources=sources)], writes=writes))


def test_a_thread_that_writes_stacks_did_not_and_asks_for_the_lock_all_the_time_then_it_is_held():
    assert shut_out(390) == "GIL held in C code"
    assert shut_out(390, ("signal", "", "")) == "GIL held in C code"
    assert shut_out(390, ("", "thread", "")) == "sleeping"
    assert shut_out(390, writes=False) == "sleeping"


def test_that_it_did_not_write_is_no_proof_on_a_busy_machine():
    assert shut_out(0) == "sleeping"
    assert shut_out(90) == "sleeping"
    assert shut_out(2000) == "sleeping"
    assert shut_out(130) == "GIL held in C code"  # it asks less often there
    assert shut_out(130, ("thread",) * 3) == "sleeping"


def test_only_the_newest_samples_count():
    slow = Sample(0, -50 * 10**9, Condition("", "R", 9.0, 1, 0, (task(state="R"),)), "thread", stack())
    assert shut_out(390, slow=[slow]) == "GIL held in C code"


@pytest.mark.parametrize(("polls", "held"), [(400, True), (230, True), (120, False), (2000, False)])
def test_a_thread_that_asks_for_the_lock_every_5_ms_tells_that_it_is_held(polls, held):
    first = [task(state="R"), task(8, channel="futex_do_wait")]
    last = [task(state="R", cpu_s=2.0), task(8, switches=polls, channel="futex_do_wait")]
    still = signs(samples(first, last, sources=("signal",) * 3), writes=False)
    assert still.gil_held is held
    once = signs(samples(first, last, sources=("signal", "", "")), writes=False)
    assert not once.gil_held
    moving = [stack(line) for line in (3, 4, 5)]
    assert not signs(samples(first, last, sources=("signal",) * 3, threads=moving), writes=False).gil_held


def test_pages_from_disk_are_swapping_and_a_thread_that_never_runs_waits_for_a_cpu():
    main = [task(state="D")]
    assert verdict(signs(samples(main, main, faults=(5, 5000)), writes=True)) == "swapping"
    assert verdict(signs(samples(main, main, faults=(5, 50)), writes=True)) == "waiting on I/O"
    ready = [task(state="R")]
    assert verdict(signs(samples(ready, ready), writes=True)) == "waiting for a CPU"


def test_the_sentence_says_where_and_how():
    seen = samples([task(channel="futex_do_wait")], [task(channel="futex_do_wait")])
    told = signs(seen, writes=True)
    assert explain(verdict(told), told, seen) == "waiting on a lock in work (app.py:3), futex_do_wait"
    forks = task(state="D", channel="kernel_clone")
    seen = samples(
        [forks, task(8, channel="futex_do_wait")],
        [forks, task(8, switches=390, channel="futex_do_wait")],
        sources=("signal",) * 3,
    )
    told = signs(seen, writes=True)
    assert (
        explain(verdict(told), told, seen)
        == "waiting on I/O in work (app.py:3), kernel_clone, uninterruptible, GIL held"
    )
    assert explain("busy loop", Signs(main_share=0.987), []) == "busy loop, 99 % of a CPU"
