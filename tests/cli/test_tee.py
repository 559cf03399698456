"""What passes through a tee is unchanged, and its last lines are kept."""

import os
import random

from datacat.cli.tee import LINE_CHARS, Tail, Tee
from datacat.worker import Pump


def test_the_tail_is_the_last_lines_however_the_bytes_are_cut():
    rng = random.Random(7)
    for _ in range(3000):
        keep = rng.choice([1, 2, 3, 5])
        data = "".join(rng.choice("ab\n") for _ in range(rng.randint(0, 40)))
        tail = Tail(keep)
        at = 0
        while at < len(data):
            step = rng.randint(1, 12)
            tail.feed(data[at : at + step].encode())
            at += step
        whole = data.split("\n")
        assert tail.lines() == (whole if whole[-1] else whole[:-1])[-keep:], (keep, data)


def test_a_line_without_an_end_takes_no_more_than_its_bound():
    tail = Tail()
    for _ in range(1000):
        tail.feed(b"x" * 65536)
    assert tail.lines() == ["x" * LINE_CHARS]
    tail.feed(b"\nnext\r\n\xff")
    assert tail.lines() == ["x" * LINE_CHARS, "next", "\ufffd"]


def test_every_byte_passes_and_the_source_is_closed():
    data = os.urandom(300_000)
    source, into = os.pipe()
    out, target = os.pipe()
    tee = Tee(source, target)
    feeder = Pump("feed", lambda: _feed(into, data), lambda: None)
    copier = Pump("copy", lambda: _copy_and_close(tee, target), lambda: None)
    feeder.start()
    copier.start()
    got = b""
    while chunk := os.read(out, 65536):
        got += chunk
    os.close(out)
    assert feeder.stop()
    assert copier.stop()
    assert got == data


def test_a_reader_that_leaves_is_told_to_the_writer():
    source, into = os.pipe()
    out, target = os.pipe()
    os.close(out)
    tee = Tee(source, target)
    os.write(into, b"x")
    tee.copy()
    os.close(target)
    try:
        os.write(into, b"y")
    except BrokenPipeError:
        told = True
    finally:
        os.close(into)
    assert told


def _feed(into, data):
    view = memoryview(data)
    while view:
        view = view[os.write(into, view) :]
    os.close(into)


def _copy_and_close(tee, target):
    tee.copy()
    os.close(target)
