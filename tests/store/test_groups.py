"""One failure, one signature: on every machine, in every version."""

from datacat.store import groups
from datacat.wire.records import Event

TRACE = [
    '  File "/opt/editor/main.py", line 10, in main',
    "    run()",
    '  File "/opt/editor/load.py", line 33, in load_config',
    "    json.loads(text)",
    '  File "/usr/lib/python3.12/json/decoder.py", line 354, in decode',
    "json.decoder.JSONDecodeError: no",
]


def exception(trace, kind="json.decoder.JSONDecodeError", **more):
    return Event(t=1, name="unhandled_exception", level="critical", exception_type=kind, stacktrace=trace, **more)


def test_folders_and_lines_of_another_machine_make_no_other_group():
    other = [line.replace("/opt/editor/", "C:\\Users\\bob\\editor\\").replace("line 33", "line 35") for line in TRACE]
    assert groups.of_event("editor", exception(TRACE)) == groups.of_event("editor", exception(other))


def test_frames_of_libraries_are_set_apart():
    found = groups.frames_of(TRACE)
    assert [frame.library for frame in found] == [False, False, True]
    assert groups.of_event("editor", exception(TRACE)).title == "json.decoder.JSONDecodeError in load_config (load.py)"
    later = [*TRACE[:-1], '  File "/x/site-packages/fast.py", line 1, in scan', TRACE[-1]]
    assert groups.of_event("editor", exception(TRACE)) == groups.of_event("editor", exception(later))


def test_product_type_and_own_frames_make_another_group():
    one = groups.of_event("editor", exception(TRACE))
    assert one.signature != groups.of_event("viewer", exception(TRACE)).signature
    assert one.signature != groups.of_event("editor", exception(TRACE, "KeyError")).signature
    moved = [line.replace("load_config", "load_theme") for line in TRACE]
    assert one.signature != groups.of_event("editor", exception(moved)).signature


def test_only_the_last_exception_of_a_chain_counts():
    cause = ['  File "/a/cause.py", line 1, in cause', "OSError: x", "caused this:"]
    assert groups.of_event("editor", exception([*cause, *TRACE])) == groups.of_event("editor", exception(TRACE))


def test_the_depth_of_a_recursion_makes_no_other_group():
    frame = '  File "/a/tree.py", line 7, in walk'
    short, deep = ([TRACE[0], *[frame] * depth] for depth in (5, 900))
    assert groups.of_event("editor", exception(short)) == groups.of_event("editor", exception(deep))


def test_a_native_crash_is_told_by_its_signal_and_the_current_threads_frames():
    threads = [
        {"name": "io", "current": False, "frames": [{"file": "io.py", "line": 1, "function": "wait"}]},
        {"name": None, "current": True, "frames": [{"file": "/x/viewer.py", "line": 3, "function": "_render"}]},
    ]
    data = {"reason": "signal", "signal_name": "SIGSEGV", "exit_signal": 11, "threads": threads}
    group = groups.of_event("viewer", Event(t=1, name="parent_process_crashed", data=data))
    assert group.title == "SIGSEGV in _render (viewer.py)"


def test_addresses_in_native_frames_make_no_other_group():
    def native(address):
        data = {"reason": "signal", "exit_signal": 6, "native_frames": [f"abort+{address}", f"draw 0x{address}"]}
        return groups.of_event("viewer", Event(t=1, name="parent_process_crashed", data=data))

    assert native("12") == native("4711")


def test_a_crash_without_frames_is_told_by_its_reason():
    assert groups.of_verdict("editor", "exit_code", 3, None).title == "exit code 3"
    assert groups.of_verdict("editor", "oom", None, 9).title == "oom"
    assert groups.of_verdict("editor", None, None, None).type == "unknown"


def test_a_hang_without_a_stack_has_no_group():
    assert groups.of_hang("editor", Event(t=1, name="application_appears_hung", data={})) is None


def test_what_no_daemon_of_ours_wrote_never_raises():
    for data in ({"threads": [1, {"frames": 3}]}, {"threads": {}}, {"native_frames": [None, {}]}, {"reason": 7}):
        assert groups.of_event("editor", Event(t=1, name="parent_process_crashed", data=data)).title == "unknown"
