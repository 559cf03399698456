"""What a process uses becomes metrics: gauges at once, counters by what came since the look before."""

import os

from datacat.daemon.metering import HANDLES, Meter
from datacat.errors import ProcessGone
from datacat.host.usage import Usage

T = 1_700_000_000_000_000


def meter(*usages, cpu_time=True):
    answers = iter(usages)
    return Meter(7, cpu_time=cpu_time, read=lambda pid: next(answers))


def told(metrics):
    return {(metric.name, *(metric.tags or ())): metric.value for metric in metrics}


def test_the_first_look_only_begins_to_count():
    found = meter(Usage(5.0, 1.0, 4096, 3, 9, 100, 200)).look(T, 1.0)
    assert told(found) == {("process.memory.usage",): 4096, ("process.thread.count",): 3, (HANDLES,): 9}
    assert {metric.type for metric in found} == {"gauge"}


def test_counters_tell_what_came_since():
    looks = meter(Usage(5.0, 1.0, 1, 1, 1, 100, 200), Usage(7.0, 1.5, 1, 1, 1, 150, 200))
    looks.look(T, 1.0)
    found = looks.look(T + 10_000_000, 11.0)
    assert told(found[3:]) == {
        ("process.cpu.utilization",): round(2.5 / 10 / os.cpu_count(), 4),
        ("process.cpu.time", "user"): 2.0,
        ("process.cpu.time", "system"): 0.5,
        ("process.disk.io", "read"): 50,
        ("process.disk.io", "write"): 0,
    }
    assert [metric.type for metric in found[4:]] == ["counter"] * 4


def test_what_the_system_does_not_tell_is_left_out():
    looks = meter(Usage(5.0, 1.0, 1, 1, 1), Usage(6.0, 1.0, 1, 1, 1), cpu_time=False)
    looks.look(T, 1.0)
    assert [metric.name for metric in looks.look(T, 2.0)][3:] == ["process.cpu.utilization"]


def test_of_a_process_that_is_gone_nothing_is_told():
    def gone(pid):
        raise ProcessGone("gone")

    assert Meter(7, cpu_time=True, read=gone).look(T, 1.0) == []
