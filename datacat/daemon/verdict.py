"""How a session ended, when its process is gone: the first witness that knows. Pure.

end() > an unhandled exception > the exit that a parent or we observed > the interpreter's own closing > unknown.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from datacat.host import ntstatus
from datacat.host.process import Exit, signal_name
from datacat.wire.records import CRASHED_EVENT, Close, Closing, Event, Record, Verdict

_ASKED_TO_STOP = frozenset({"SIGTERM", "SIGINT", "SIGHUP"})


class Witness(NamedTuple):
    """What is known of a process that is gone.

    exit is what we saw (None: nothing). hung_s is how long it hung when it died. oom says in words that the kernel
    killed it for memory (empty: it did not). rebooted is power or reboot when the machine went down under it. frames is
    the stack of a crash, innermost last; fatal the interpreter's last words; last is what else goes into the event's
    data.
    """

    t_us: int
    close: Close | None = None
    closing: Closing | None = None
    observed: Closing | None = None
    exit: Exit | None = None
    hung_s: float | None = None
    oom: str = ""
    rebooted: str = ""
    fatal: str = ""
    fatal_signal: int | None = None
    frames: tuple[str, ...] = ()
    last: Mapping[str, Any] = {}


def judge(seen: Witness) -> list[Record]:
    """Return the verdict, and before it the event of a crash; nothing when end() has said it all."""
    code, signal = _exit_of(seen)
    if seen.close is not None:
        if code is None and signal is None:
            return []
        return [Verdict(t=seen.t_us, status="ended", reason="clean", exit_code=code, exit_signal=signal)]
    if seen.rebooted:
        text = "the machine went down under it"
        return [Verdict(t=seen.t_us, status="abnormal", reason=seen.rebooted, detail=text, hang_s=seen.hung_s)]
    status, reason, detail = _cause(seen, code, signal)
    verdict = Verdict(
        t=seen.t_us,
        status=status,
        reason=reason,
        detail=detail or None,
        exit_code=code,
        exit_signal=signal,
        hang_s=_rounded(seen.hung_s),
    )
    if status != "crashed":
        return [verdict]
    return [_crash(seen, reason, detail, code, signal), verdict]


def is_crash(seen: Witness) -> bool:
    """Whether judge() will tell of a crash: only then it is worth looking for the last words."""
    return seen.close is None and not seen.rebooted and _cause(seen, *_exit_of(seen))[0] == "crashed"


def _exit_of(seen: Witness) -> tuple[int | None, int | None]:
    if seen.exit is not None and seen.exit.known:
        return seen.exit.code, seen.exit.signal
    if seen.observed is not None:
        return seen.observed.exit_code, seen.observed.exit_signal
    if seen.fatal_signal is not None:
        return None, seen.fatal_signal
    # The interpreter's own guess of its exit code is better than none.
    return (seen.closing.exit_code, None) if seen.closing is not None else (None, None)


def _cause(seen: Witness, code: int | None, signal: int | None) -> tuple[str, str, str]:
    """Return status, reason and detail."""
    exception = seen.closing.exception_type if seen.closing is not None else None
    if exception:
        message = (seen.closing.exception_msg if seen.closing is not None else None) or ""
        return "crashed", "exception", f"{exception}: {message}" if message else exception
    observed = (seen.exit is not None and seen.exit.known) or seen.observed is not None or seen.fatal_signal is not None
    if observed and signal is not None:
        return _by_signal(seen, signal)
    if observed and code is not None:
        if code == 0:
            return "ended", "exit_zero", ""
        if status := ntstatus.status(code):
            text = f"{status.name}: {status.words}"
            return ("ended", "terminated", text) if code in ntstatus.ASKED_TO_STOP else ("crashed", "signal", text)
        shown = ntstatus.signed(code)
        if seen.hung_s is not None and seen.closing is None:
            return "crashed", "hang", f"exit code {shown} after it hung for {seen.hung_s:.0f} s"
        return "crashed", "exit_code", f"exit code {shown}"
    if seen.closing is None and seen.oom:
        return "crashed", "oom", f"nobody saw its exit, but {seen.oom}"
    if seen.closing is not None:
        return "ended", "closed", "the interpreter ended; its exit status was not seen"
    if seen.hung_s is not None:
        return "crashed", "hang", f"gone after it hung for {seen.hung_s:.0f} s"
    return "crashed", "unknown", "the process is gone; nobody saw how"


def _by_signal(seen: Witness, signal: int) -> tuple[str, str, str]:
    name = signal_name(signal)
    if name in _ASKED_TO_STOP:
        return "ended", "terminated", name
    if name == "SIGKILL":
        if seen.oom:
            return "crashed", "oom", f"killed by the kernel, out of memory: {seen.oom}"
        if seen.hung_s is not None:
            return "crashed", "hang", f"killed after it hung for {seen.hung_s:.0f} s"
        return "crashed", "killed", name
    return "crashed", "signal", f"{name}: {seen.fatal}" if seen.fatal else name


def _crash(seen: Witness, reason: str, detail: str, code: int | None, signal: int | None) -> Event:
    data: dict[str, Any] = {"reason": reason, "exit_code": code, "exit_signal": signal}
    if signal is not None:
        data["signal_name"] = signal_name(signal)
    if code is not None and (status := ntstatus.status(code)):
        data["ntstatus"] = status.name
    if seen.exit is not None and seen.exit.core:
        data["core_dumped"] = True
    data["detail"] = detail
    data |= seen.last
    data = {name: value for name, value in data.items() if value is not None}
    closing = seen.closing if reason == "exception" else None
    return Event(
        t=seen.t_us,
        name=CRASHED_EVENT,
        level="critical",
        category="lifecycle",
        message=f"crashed, {reason}: {detail}",
        data=data,
        stacktrace=list(seen.frames) or None,
        exception_type=closing.exception_type if closing else None,
        exception_msg=closing.exception_msg if closing else None,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
