"""What a silent app does, in plain words: a decision on what was seen of it. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from datacat.daemon.dumps import Frame, Thread
from datacat.host.condition import Condition, Task
from datacat.wire.hangs import SAMPLES

BUSY_LOOP = "busy loop"
LOCK = "waiting on a lock"
IO = "waiting on I/O"
SLEEP = "sleeping"
CHILD = "waiting for a child process"
GIL = "GIL held in C code"
STOPPED = "stopped"
SWAPPING = "swapping"
NO_CPU = "waiting for a CPU"
UNKNOWN = "unknown"
VERDICTS = (BUSY_LOOP, LOCK, IO, SLEEP, CHILD, GIL, STOPPED, SWAPPING, NO_CPU, UNKNOWN)

BUSY_SHARE = 0.5
IDLE_SHARE = 0.05
SWAPPING_FAULTS_PER_S = 100.0
"""So many pages from disk in a second leave no time for much else (a disk needs about 1 ms for each)."""
GIL_POLLS_PER_S = (110.0, 260.0)
"""A thread that waits for the interpreter's lock asks for it every 5 ms (sys.setswitchinterval), so it wakes up 200
times a second; measured 190 to 200, less on a busy machine."""
FEWEST_POLLS_PER_S = 50.0
"""So few are enough when the thread that writes stacks has not: what else would have kept it from that?"""

_LOCK_CHANNELS = ("futex", "flock", "fcntl_setlk", "locks_", "posix_lock", "rt_mutex", "umtx")
_SLEEP_CHANNELS = ("hrtimer_nanosleep", "do_nanosleep")
_CHILD_CHANNELS = ("do_wait", "kernel_wait", "wait_consider")
_BY_SYSCALL = {
    "futex": LOCK,
    "flock": LOCK,
    "fcntl": LOCK,
    "nanosleep": SLEEP,
    "clock_nanosleep": SLEEP,
    "wait4": CHILD,
    "waitid": CHILD,
}
# Where the system tells nothing: by the file and function of the innermost Python frame.
_BY_FRAME = {
    ("threading.py", "wait"): LOCK,
    ("threading.py", "acquire"): LOCK,
    ("threading.py", "join"): LOCK,
    ("threading.py", "_wait_for_tstate_lock"): LOCK,
    ("queue.py", "get"): LOCK,
    ("queue.py", "put"): LOCK,
    ("selectors.py", "select"): IO,
    ("socket.py", "readinto"): IO,
    ("socket.py", "accept"): IO,
    ("ssl.py", "read"): IO,
    ("ssl.py", "recv"): IO,
    ("connection.py", "_recv"): IO,
    ("subprocess.py", "_try_wait"): CHILD,
    ("subprocess.py", "_wait"): CHILD,
}


class Sample(NamedTuple):
    """One look at a silent app. source is who wrote the stacks: thread, signal, py-spy; empty for none.

    threads is the stacks at that moment, the main thread's first (that of the signal alone); current marks it.
    awake_ns is host.awake_ns().
    """

    t_us: int
    awake_ns: int
    condition: Condition | None
    source: str = ""
    threads: tuple[Thread, ...] = ()


class Signs(NamedTuple):
    """What several samples tell together. Shares are of one CPU; waits is one of the verdicts, or empty for running.

    gil_held: a thread that only needs the interpreter's lock could not run. runs: the main thread ran, or was ready to
    run, in every sample; on a busy machine it gets less than a whole CPU.
    """

    held: str = ""
    faults_per_s: float = 0.0
    gil_held: bool = False
    main_share: float | None = None
    share: float | None = None
    uninterruptible: bool = False
    runs: bool = False
    waits: str = ""


def verdict(signs: Signs) -> str:
    """Return the one of VERDICTS that says best what keeps the app from answering."""
    if signs.held:
        return STOPPED
    if signs.faults_per_s >= SWAPPING_FAULTS_PER_S:
        return SWAPPING
    if signs.uninterruptible:
        return IO
    if signs.gil_held:
        return GIL
    main_share = signs.share if signs.main_share is None else signs.main_share
    if main_share is not None and main_share >= (IDLE_SHARE if signs.runs else BUSY_SHARE):
        return BUSY_LOOP
    if signs.runs and main_share is not None:
        return NO_CPU
    return signs.waits or UNKNOWN


def signs(samples: Sequence[Sample], *, writes: bool) -> Signs:
    """Return what the newest samples (the last ones) tell. writes: the app has a thread that writes stacks if it can.

    That it did not is no proof: a busy machine, or a disk that does not answer, keeps it from that too. That the lock
    is held is seen by a thread that asks for it again and again, and gets it in no sample.
    """
    recent = samples[-SAMPLES:]
    seen = [(sample, sample.condition) for sample in recent if sample.condition is not None]
    threads = next((sample.threads for sample in reversed(samples) if sample.threads), ())
    if not seen:
        return Signs(waits=_by_frame(threads))
    shut_out = writes and len(recent) > 1 and all(sample.source != "thread" for sample in recent)
    fewest, most = FEWEST_POLLS_PER_S if shut_out else GIL_POLLS_PER_S[0], GIL_POLLS_PER_S[1]
    (first, a), (last, b) = seen[0], seen[-1]
    span_s = (last.awake_ns - first.awake_ns) / 1e9
    main = b.tasks[0] if b.tasks else None
    before = {task.tid: task for task in a.tasks}
    polls = any(fewest <= _futex_waits_per_s(before.get(task.tid), task, span_s) <= most for task in b.tasks)
    states = [condition.state for _, condition in seen]
    main_share = _share(before.get(main.tid), main, span_s) if main is not None else None
    return Signs(
        held=b.held,
        faults_per_s=(b.major_faults - a.major_faults) / span_s if span_s > 0 else 0.0,
        gil_held=polls and _stands_still(recent, shut_out=shut_out),
        main_share=main_share,
        share=(b.cpu_s - a.cpu_s) / span_s if span_s > 0 else None,
        uninterruptible=all(state == "D" for state in states),
        runs=all(state == "R" for state in states),
        waits=_waits(main) or _by_frame(threads),
    )


def explain(what: str, told: Signs, samples: Sequence[Sample]) -> str:
    """Return the verdict with where and how: waiting on a lock in transfer (bank.py:12), futex_do_wait."""
    last = samples[-1] if samples else None
    parts = [what]
    if last is not None and (frames := main_frames(last.threads)):
        parts[0] += f" in {_place(frames[-1])}"
    main = last.condition.tasks[0] if last is not None and last.condition and last.condition.tasks else None
    if told.main_share is not None and told.main_share >= IDLE_SHARE:
        parts.append(f"{round(100 * told.main_share)} % of a CPU")
    elif main is not None and main.wait_channel:
        parts.append(main.wait_channel)
    if told.uninterruptible:
        parts.append("uninterruptible")
    if what == SWAPPING:
        parts.append(f"{told.faults_per_s:.0f} pages a second from disk")
    if told.gil_held and what != GIL:
        parts.append("GIL held")
    return ", ".join(parts)


def main_frames(threads: Sequence[Thread]) -> tuple[Frame, ...]:
    """Return the stack of the main thread; empty when it is not known."""
    return threads[0].frames if threads and threads[0].current else ()


def _place(frame: Frame) -> str:
    name = frame.file.replace("\\", "/").rpartition("/")[2]
    return f"{frame.function} ({name}:{frame.line if frame.line is not None else '?'})"


def _share(before: Task | None, now: Task, span_s: float) -> float | None:
    return (now.cpu_s - before.cpu_s) / span_s if before is not None and span_s > 0 else None


def _futex_waits_per_s(before: Task | None, now: Task, span_s: float) -> float:
    """Return how often a thread that does nothing else woke up from a wait for a lock; 0 for any other thread."""
    if before is None or span_s <= 0:
        return 0.0
    if not any((task.wait_channel or task.syscall).startswith("futex") for task in (before, now)):
        return 0.0  # at either moment it may just have been awake
    share = _share(before, now, span_s) or 0.0
    return (now.switches - before.switches) / span_s if share < IDLE_SHARE else 0.0


def _stands_still(samples: Sequence[Sample], *, shut_out: bool) -> bool:
    """Return whether every thread was at the same line in all stacks: with the lock held, none can move.

    One look does not tell that; that a thread was shut out all the time does.
    """
    stacks = [tuple(thread.frames[-1:] for thread in sample.threads) for sample in samples if sample.threads]
    return len(set(stacks)) <= 1 and (shut_out or len(stacks) > 1)


def _waits(task: Task | None) -> str:
    if task is None or task.state == "R":
        return ""
    channel = task.wait_channel
    if channel.startswith(_LOCK_CHANNELS):
        return LOCK
    if channel.startswith(_SLEEP_CHANNELS):
        return SLEEP
    if channel.startswith(_CHILD_CHANNELS):
        return CHILD
    if task.syscall:
        return _BY_SYSCALL.get(task.syscall, IO)
    return IO if channel else ""


def _by_frame(threads: Sequence[Thread]) -> str:
    frames = main_frames(threads)
    if not frames:
        return ""
    frame = frames[-1]
    return _BY_FRAME.get((frame.file.replace("\\", "/").rpartition("/")[2], frame.function), "")
