"""What faulthandler wrote: cut tails, several dumps, the forms of other Pythons; as JSON and as text."""

import signal

from datacat.daemon.dumps import Frame, as_json, parse, traceback


def test_several_dumps_and_a_cut_tail_are_read_as_far_as_they_go():
    text = (
        "Timeout (0:00:01)!\nThread 0x01 [main] (most recent call first):\n"
        '  File "a b/c.py", line 12 in wait\n\nFatal Python error: Bus error\n\n'
        'Current thread 0x02 (most recent call first):\n  Garbage-collecting\n  File "d.py", line ??? in f\n  File "e.py", li'
    )
    first, second = parse(text)
    assert (first.fatal, first.frames) == ("", (Frame("a b/c.py", 12, "wait"),))
    assert first.threads[0].name == "main"
    assert (second.fatal, second.signal, second.frames) == ("Bus error", signal.SIGBUS, (Frame("d.py", None, "f"),))


def test_the_c_stack_of_newer_pythons_is_left_out():
    (dump,) = parse(
        "Fatal Python error: Aborted\n\nCurrent thread 0x01 (most recent call first):\n"
        '  File "a.py", line 1 in f\n\nCurrent thread\'s C stack trace (most recent call first):\n'
        '  Binary file "python", at _Py_DumpStack+0x1d [0x55]\n\nExtension modules: x (total: 1)\n'
    )
    assert dump.frames == (Frame("a.py", 1, "f"),)


def test_frames_read_as_a_traceback_of_python_reads():
    frames = [Frame("a.py", 1, "<module>"), Frame("b.py", None, "f")]
    assert traceback(frames) == ['  File "a.py", line 1, in <module>', '  File "b.py", line ?, in f']


def test_threads_as_json_have_the_current_one_first_and_the_newest_calls_last():
    (dump,) = parse(
        'Thread 0x02 (most recent call first):\n  File "w.py", line 5 in work\n\n'
        'Current thread 0x01 (most recent call first):\n  File "b.py", line 2 in inner\n  File "a.py", line 1 in outer\n'
    )
    inner = {"file": "b.py", "line": 2, "function": "inner"}
    outer = {"file": "a.py", "line": 1, "function": "outer"}
    assert as_json(dump.threads, most=1, frames=9) == [
        {"name": None, "id": "01", "current": True, "frames": [outer, inner]}
    ]
    cut, other = as_json(dump.threads, most=2, frames=1)
    assert (cut["frames"], cut["frames_cut"]) == ([inner], 1)
    assert (other["id"], other["current"], len(other["frames"])) == ("02", False, 1)
