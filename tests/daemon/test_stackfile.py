"""What the daemon reads in a stacks file: who wrote each dump, names, only news, and nothing of ours."""

import os

import pytest

from datacat.daemon.dumps import Frame
from datacat.daemon.stackfile import EMPTY_ABOVE_BYTES, StackFile, read
from datacat.wire.hangs import Handle

HEAD = "# signal 23 fd 1000\n"
BY_THREAD = """# thread 0x2 MainThread
# thread 0x3 datacat-heartbeat
# thread 0x1 loader
# at 1700000000000000
Current thread 0x0000000000000003 (most recent call first):
  File "datacat/client/stacks.py", line 9 in write

Thread 0x0000000000000002 (most recent call first):
  File "app.py", line 3 in wait
  File "app.py", line 9 in <module>

Thread 0x0000000000000001 (most recent call first):
  File "app.py", line 5 in load
"""
BY_SIGNAL = 'Stack (most recent call first):\n  File "app.py", line 5 in wait\n  File "app.py", line 9 in <module>\n'
BY_ANOTHER = (
    'Stack (most recent call first):\n  File "app.py", line 6 in load\n  File "/x/threading.py", line 7 in _bootstrap\n'
)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "stacks").write_text(HEAD)
    return StackFile(tmp_path)


def append(file, text):
    with file.path.open("a") as opened:
        opened.write(text)


def test_each_dump_tells_who_wrote_it():
    found, names = read(HEAD + BY_SIGNAL + BY_THREAD + BY_SIGNAL + BY_SIGNAL + BY_THREAD + BY_SIGNAL)
    assert [each.source for each in found] == ["signal", "thread", "signal", "signal", "thread", "signal"]
    assert [len(each.threads) for each in found] == [1, 3, 1, 1, 3, 1]
    assert names == {"2": "MainThread", "3": "datacat-heartbeat", "1": "loader"}


def test_the_main_thread_comes_first_and_ours_does_not_come(file):
    append(file, BY_THREAD)
    source, (main, loader) = file.newest(0)
    assert source == "thread"
    assert (main.name, main.current, main.frames) == (
        "MainThread",
        True,
        (Frame("app.py", 9, "<module>"), Frame("app.py", 3, "wait")),
    )
    assert (loader.name, loader.current) == ("loader", False)


def test_names_once_told_name_later_threads_and_without_names_the_oldest_is_the_main_one(file):
    unnamed = BY_THREAD.partition("# at")[1] + BY_THREAD.partition("# at")[2]
    append(file, unnamed)
    assert [(each.name, each.id[-1], each.current) for each in file.newest(0).threads] == [
        (None, "1", True),
        (None, "3", False),
        (None, "2", False),
    ]
    append(file, BY_THREAD)
    file.newest(0)
    append(file, unnamed)
    assert [each.name for each in file.newest(0).threads] == ["MainThread", "loader"]


def test_what_the_signal_makes_it_write_is_the_stack_of_the_main_thread(file):
    append(file, "# thread 0x2 MainThread\n" + BY_SIGNAL)
    source, (main,) = file.newest(0)
    assert source == "signal"
    assert (main.name, main.id, main.current) == ("MainThread", "0" * 15 + "2", True)
    assert main.frames == (Frame("app.py", 9, "<module>"), Frame("app.py", 5, "wait"))


def test_a_thread_that_got_the_signal_in_its_place_is_not_taken_for_it(file):
    append(file, BY_ANOTHER)
    assert file.newest(0) is None


def test_all_threads_go_before_one_that_was_written_later(file):
    append(file, BY_THREAD + BY_SIGNAL)
    source, threads = file.newest(0)
    assert (source, len(threads)) == ("thread", 2)


def test_only_news_are_read_and_of_them_the_newest(file):
    append(file, BY_SIGNAL + BY_SIGNAL.replace("line 5", "line 6"))
    assert file.newest(0).threads[0].frames[-1].line == 6
    assert file.newest(0) is None
    assert not file.has_news(0)
    append(file, BY_SIGNAL)
    assert file.has_news(0)
    assert file.newest(0).source == "signal"


def test_what_was_written_before_the_last_heartbeat_tells_nothing(file):
    append(file, BY_SIGNAL)
    os.utime(file.path, (1000, 1000))
    assert file.newest(1_000_000_001) is None
    assert file.newest(1_000_000_000).source == "signal"


def test_names_alone_are_no_stacks(file):
    append(file, "# thread 0x2 MainThread\n")
    assert file.newest(0) is None


def test_a_large_file_that_was_read_is_emptied_but_for_its_first_line(file):
    append(file, "x" * EMPTY_ABOVE_BYTES)
    file.skip()
    assert file.path.read_text() == HEAD
    assert file.handle() == Handle(23, 1000)
    append(file, BY_SIGNAL)
    assert file.newest(0).source == "signal"


@pytest.mark.parametrize("body", [None, "", "\0\0\0", "nothing of ours\n" * 9, "Stack (", "# at x\n# thread\n# signal"])
def test_other_texts_are_no_stacks(tmp_path, body):
    if body is not None:
        (tmp_path / "stacks").write_text(body)
    file = StackFile(tmp_path)
    assert file.newest(0) is None
    assert file.handle() is None
    file.skip()


def test_a_main_thread_that_a_large_dump_does_not_have_is_not_taken_for_another(file):
    append(file, BY_THREAD)
    file.newest(0)
    append(file, 'Thread 0x0000000000000001 (most recent call first):\n  File "app.py", line 6 in load\n')
    (loader,) = file.newest(0).threads
    assert (loader.name, loader.current) == ("loader", False)
