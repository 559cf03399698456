"""What a process uses, as metrics by the names of OpenTelemetry (semantic conventions for processes).

Counters tell what came since the look before; the first look only begins to count. Their tag is the attribute that
OpenTelemetry names: cpu.mode (user, system), disk.io.direction (read, write).
"""

import os
import sys
from collections.abc import Callable

from datacat.errors import HostError
from datacat.host import usage
from datacat.host.usage import Usage
from datacat.wire.records import Metric

HANDLES = "process.windows.handle.count" if sys.platform == "win32" else "process.open_file_descriptor.count"
HANDLES_UNIT = "{handle}" if sys.platform == "win32" else "{file_descriptor}"


class Meter:
    """Look at one process again and again. Owned by one thread.

    cpu_time: whether CPU time is counted here; the parent of a program that `datacat run` started knows it exactly.
    """

    def __init__(self, pid: int, *, cpu_time: bool, read: Callable[[int], Usage] = usage.usage) -> None:
        self._pid = pid
        self._cpu_time = cpu_time
        self._read = read
        self._before: tuple[float, Usage] | None = None

    def look(self, now_us: int, now_s: float) -> list[Metric]:
        """Return what there is to tell now; nothing of a process that is gone or may not be looked at."""
        try:
            used = self._read(self._pid)
        except HostError:
            return []
        before, self._before = self._before, (now_s, used)
        found = [
            Metric(t=now_us, name="process.memory.usage", value=used.rss_bytes, unit="By"),
            Metric(t=now_us, name="process.thread.count", value=used.threads, unit="{thread}"),
            Metric(t=now_us, name=HANDLES, value=used.fds, unit=HANDLES_UNIT),
        ]
        if before is not None and now_s > before[0]:
            found += _since(before[1], used, now_us, now_s - before[0], cpu_time=self._cpu_time)
        return found


def _since(before: Usage, used: Usage, now_us: int, passed_s: float, *, cpu_time: bool) -> list[Metric]:
    spent_s = max(0.0, used.cpu_s - before.cpu_s)
    share = spent_s / passed_s / (os.cpu_count() or 1)
    found = [Metric(t=now_us, name="process.cpu.utilization", value=round(share, 4), unit="1")]
    if cpu_time:
        for mode, now, then in (
            ("user", used.user_s, before.user_s),
            ("system", used.system_s, before.system_s),
        ):
            found.append(_counted(now_us, "process.cpu.time", round(now - then, 6), "s", mode))
    if used.read_bytes is not None and before.read_bytes is not None:
        found.append(_counted(now_us, "process.disk.io", used.read_bytes - before.read_bytes, "By", "read"))
    if used.written_bytes is not None and before.written_bytes is not None:
        found.append(_counted(now_us, "process.disk.io", used.written_bytes - before.written_bytes, "By", "write"))
    return found


def _counted(now_us: int, name: str, value: float, unit: str, tag: str) -> Metric:
    return Metric(t=now_us, name=name, value=max(0, value), type="counter", unit=unit, tags=[tag])
