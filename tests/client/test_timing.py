import asyncio
import threading

import pytest
from client_helpers import written

from datacat.client import timing


def timers(session):
    return [record for record in written(session.journal_folder)[1:] if record.type == "timer"]


def test_a_block_is_one_timer_with_its_count_unit_and_tags(session):
    with session.timer("load", count=2, tags=["cold"], unit="ms") as timer:
        threading.Event().wait(0.01)
        timer.count = 5
    (record,) = timers(session)
    assert (record.name, record.count, record.tags, record.unit) == ("load", 5, ["cold"], "ms")
    assert 9 < record.value < 1000


def test_a_block_that_raises_is_measured_too(session):
    with pytest.raises(ValueError), session.timer("fail"):
        raise ValueError
    assert len(timers(session)) == 1


def test_a_decorated_function_is_measured_at_every_call_in_any_thread(session):
    @session.timer("work", tags=["t"])
    def work(a, *, b):
        """Add."""
        return a + b

    assert work(1, b=2) == 3
    thread = threading.Thread(target=work, args=(1,), kwargs={"b": 1})
    thread.start()
    thread.join()
    assert [record.tags for record in timers(session)] == [["t"], ["t"]]
    assert work.__doc__ == "Add."


def test_a_clock_that_is_set_back_does_not_matter(session, monkeypatch):
    moments = iter([10.0, 12.5])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(moments))
    monkeypatch.setattr(timing.time, "time", lambda: 0.0)
    with session.timer("x"):
        pass
    assert timers(session)[0].value == 2.5


@pytest.mark.parametrize(("unit", "factor"), [("seconds", 1), ("ms", 1000), ("us", 1e6), ("furlongs", 1), (None, 1)])
def test_units_are_converted(unit, factor):
    assert timing.factor(unit) == factor


def test_a_block_in_a_coroutine_measures_its_waits(session):
    async def main():
        with session.timer("wait"):
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert timers(session)[0].value > 0.009
