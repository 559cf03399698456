import json

import pytest

from datacat.client import exceptions


def caught(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_the_stack_reads_like_python_s_own_innermost_call_last():
    def inner():
        raise ValueError("boom")

    def outer():
        inner()

    lines = exceptions.stack(caught(outer))
    calls = [line.rsplit(" in ", 1)[1] for line in lines if line.startswith("  File")]
    assert calls == ["caught", "outer", "inner"]
    assert 'raise ValueError("boom")' in lines[-2]
    assert lines[-1] == "ValueError: boom"


def test_what_was_handled_when_it_happened_stands_before_it():
    def fail():
        try:
            raise KeyError("first")
        except KeyError:
            raise TypeError("second")  # noqa: B904  the implicit context is meant

    text = "\n".join(exceptions.stack(caught(fail)))
    assert text.index("KeyError: 'first'") < text.index("and while that was handled:") < text.index("TypeError: second")


def test_a_suppressed_context_is_left_out():
    def fail():
        try:
            raise KeyError("first")
        except KeyError:
            raise TypeError("second") from None

    assert "KeyError" not in "\n".join(exceptions.stack(caught(fail)))


def test_causes_in_a_circle_end():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert [line for line in exceptions.stack(first) if line.startswith("ValueError")] == [
        "ValueError: b",
        "ValueError: a",
    ]


def test_a_deep_recursion_keeps_its_beginning_and_its_end():
    def deep(n):
        if n == 0:
            raise ValueError("bottom")
        deep(n - 1)

    lines = exceptions.frames(caught(lambda: deep(500)).__traceback__)
    assert len(lines) < 3 * exceptions.MAX_FRAMES
    assert any("more calls" in line for line in lines)
    assert "raise ValueError" in lines[-1]


def test_a_group_names_what_is_in_it():
    error = caught(lambda: (_ for _ in ()).throw(ExceptionGroup("two", [ValueError("a"), OSError("b")])))
    lines = exceptions.stack(error)
    assert lines[-2:] == ["  ValueError: a", "  OSError: b"]


def test_the_source_is_the_innermost_frame_of_the_app_not_of_a_library():
    def app():
        json.loads("{")

    event = exceptions.event(1, caught(app), name="x", level="error")
    assert event.exception_type == "json.decoder.JSONDecodeError"
    assert event.source_file == __file__
    assert event.source_function == "app"


def test_an_exception_without_traceback_has_no_source():
    event = exceptions.event(1, ValueError("new"), name="x", level="error", data={"a": 1})
    assert (event.source_file, event.source_line, event.data) == (None, None, {"a": 1})
    assert event.stacktrace == ["ValueError: new"]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError(), "ValueError"),
        (json.JSONDecodeError("", "", 0), "json.decoder.JSONDecodeError"),
    ],
)
def test_types_have_their_module_unless_they_are_built_in(error, name):
    assert exceptions.type_name(error) == name


def test_a_message_is_a_text_whatever_the_exception_does():
    class Bad(Exception):
        def __str__(self):
            raise RuntimeError

    assert exceptions.message(Bad()) == "<exception without text>"
    assert exceptions.message(ValueError("\ud800")) == "?"
    assert len(exceptions.message(ValueError("x" * 10**6))) <= 4096


def test_every_form_of_exc_info_names_its_exception():
    error = caught(lambda: 1 / 0)
    assert exceptions.current(error) is error
    assert exceptions.current((type(error), error, None)) is error
    assert exceptions.current(None) is None
    assert exceptions.current("rubbish") is None
    try:
        raise error
    except ZeroDivisionError:
        assert exceptions.current(True) is error
        assert exceptions.current((None, None, None)) is error
