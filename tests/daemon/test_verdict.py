"""How a session ended: the first witness that knows, for every kind of end."""

import pytest

from datacat.daemon.verdict import Witness, judge
from datacat.host.process import UNKNOWN_EXIT, Exit
from datacat.wire.records import Close, Closing, Event, Verdict

T = 1_700_000_000_000_000


def code(number):
    return Exit(number, None, core=False, known=True)


def signal(number, *, core=False):
    return Exit(None, number, core=core, known=True)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"exit": code(0)}, ("ended", "exit_zero")),
        ({"exit": code(3)}, ("crashed", "exit_code")),
        ({"exit": signal(15)}, ("ended", "terminated")),
        ({"exit": signal(2)}, ("ended", "terminated")),
        ({"exit": signal(1)}, ("ended", "terminated")),
        ({"exit": signal(11)}, ("crashed", "signal")),
        ({"exit": signal(6)}, ("crashed", "signal")),
        ({"exit": signal(9)}, ("crashed", "killed")),
        ({"exit": signal(9), "oom": "the log names it"}, ("crashed", "oom")),
        ({"exit": UNKNOWN_EXIT, "oom": "the log names it"}, ("crashed", "oom")),
        ({"exit": UNKNOWN_EXIT, "oom": "the log names it", "closing": Closing(t=T)}, ("ended", "closed")),
        ({"exit": code(3), "oom": "the log names it"}, ("crashed", "exit_code")),
        ({"exit": signal(9), "hung_s": 70.0}, ("crashed", "hang")),
        ({"exit": signal(15), "hung_s": 70.0}, ("ended", "terminated")),
        ({"exit": code(1), "hung_s": 70.0}, ("crashed", "hang")),
        ({"exit": UNKNOWN_EXIT, "hung_s": 70.0}, ("crashed", "hang")),
        ({"exit": UNKNOWN_EXIT}, ("crashed", "unknown")),
        ({}, ("crashed", "unknown")),
        ({"closing": Closing(t=T)}, ("ended", "closed")),
        ({"closing": Closing(t=T), "exit": UNKNOWN_EXIT}, ("ended", "closed")),
        ({"closing": Closing(t=T), "exit": code(2)}, ("crashed", "exit_code")),
        ({"closing": Closing(t=T, exception_type="KeyError"), "exit": code(1)}, ("crashed", "exception")),
        ({"closing": Closing(t=T, exception_type="KeyError"), "exit": signal(9)}, ("crashed", "exception")),
        ({"observed": Closing(t=T, exit_code=0, observed=True)}, ("ended", "exit_zero")),
        ({"observed": Closing(t=T, exit_code=5, observed=True), "exit": UNKNOWN_EXIT}, ("crashed", "exit_code")),
        ({"observed": Closing(t=T, exit_signal=11, observed=True)}, ("crashed", "signal")),
        ({"fatal": "Segmentation fault", "fatal_signal": 11}, ("crashed", "signal")),
        ({"rebooted": "power"}, ("abnormal", "power")),
        ({"rebooted": "reboot", "closing": Closing(t=T)}, ("abnormal", "reboot")),
        ({"exit": code(0xC0000005)}, ("crashed", "signal")),
        ({"exit": code(0xC000013A)}, ("ended", "terminated")),
        ({"exit": code(0xC000026B)}, ("ended", "terminated")),
        ({"exit": code(0xC0001234)}, ("crashed", "signal")),
        ({"exit": code(0xE06D7363)}, ("crashed", "signal")),
        ({"exit": code(0xFFFFFFFF)}, ("crashed", "exit_code")),
        ({"exit": UNKNOWN_EXIT, "closing": Closing(t=T), "hung_s": 70.0}, ("ended", "closed")),
    ],
)
def test_the_first_witness_that_knows_decides(seen, expected):
    records = judge(Witness(t_us=T, **seen))
    verdict = records[-1]
    assert isinstance(verdict, Verdict)
    assert (verdict.status, verdict.reason, verdict.by, verdict.t) == (*expected, "daemon", T)
    crashes = [record for record in records if isinstance(record, Event)]
    assert len(crashes) == (expected[0] == "crashed")


def test_after_end_only_the_exit_is_added():
    assert judge(Witness(t_us=T, close=Close(t=T), exit=UNKNOWN_EXIT)) == []
    (verdict,) = judge(Witness(t_us=T, close=Close(t=T), exit=code(4)))
    assert (verdict.status, verdict.reason, verdict.exit_code) == ("ended", "clean", 4)


def test_the_event_of_a_crash_carries_what_is_known():
    witness = Witness(
        t_us=T,
        exit=signal(11, core=True),
        fatal="Segmentation fault",
        frames=("a.py:1 in f",),
        last={"fatal": "Segmentation fault"},
    )
    event, verdict = judge(witness)
    assert (event.name, event.level, event.stacktrace) == ("parent_process_crashed", "critical", ["a.py:1 in f"])
    assert event.data == {
        "reason": "signal",
        "exit_signal": 11,
        "signal_name": "SIGSEGV",
        "core_dumped": True,
        "detail": "SIGSEGV: Segmentation fault",
        "fatal": "Segmentation fault",
    }
    assert (verdict.exit_signal, verdict.detail) == (11, "SIGSEGV: Segmentation fault")


def test_the_exception_that_ended_the_app_is_told():
    closing = Closing(t=T, exception_type="KeyError", exception_msg="'cart'")
    event, verdict = judge(Witness(t_us=T, closing=closing, exit=code(1)))
    assert (event.exception_type, event.exception_msg) == ("KeyError", "'cart'")
    assert (verdict.detail, verdict.exit_code) == ("KeyError: 'cart'", 1)


def test_a_hang_that_ends_in_death_counts_its_length():
    assert judge(Witness(t_us=T, exit=signal(9), hung_s=12.5))[-1].hang_s == 12.5


@pytest.mark.parametrize(
    ("number", "detail", "name"),
    [
        (0xC0000005, "STATUS_ACCESS_VIOLATION: access violation", "STATUS_ACCESS_VIOLATION"),
        (0xC0001234, "NTSTATUS 0xC0001234: fatal exception", "NTSTATUS 0xC0001234"),
        (0xFFFFFFFF, "exit code -1", None),
    ],
)
def test_exit_codes_of_windows_are_told_by_name(number, detail, name):
    event, verdict = judge(Witness(t_us=T, exit=code(number)))
    assert (verdict.detail, verdict.exit_code, event.data.get("ntstatus")) == (detail, number, name)
