import logging

import pytest
from client_helpers import written

import datacat
from datacat.client import logs


@pytest.fixture
def logger(session):
    handler = datacat.LogHandler(session)
    logger = logging.getLogger("editor.files")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.removeHandler(handler)


def events(session):
    return written(session.journal_folder)[1:]


def test_message_level_logger_extra_fields_and_exception_stay_together(session, logger):
    try:
        raise OSError("disk")
    except OSError:
        logger.exception("cannot save %s", "a.txt", extra={"size": 12, "where": {"path": "/x"}})
    (event,) = events(session)
    assert (event.name, event.level, event.group) == ("log", "error", "editor.files")
    assert event.message == "cannot save a.txt"
    assert event.data["size"] == 12
    assert event.data["where"] == {"path": "/x"}
    assert (event.exception_type, event.exception_msg) == ("OSError", "disk")
    assert event.stacktrace[-1] == "OSError: disk"


def test_a_plain_record_says_where_it_was_logged(session, logger):
    logger.info("hello")
    (event,) = events(session)
    assert (event.level, event.message) == ("info", "hello")
    assert (event.source_file, event.source_function) == (__file__, "test_a_plain_record_says_where_it_was_logged")
    assert event.exception_type is None


def test_extra_fields_that_are_no_json_and_arguments_that_do_not_fit_are_kept_somehow(session):
    datacat.LogHandler(session).handle(
        logging.makeLogRecord({"name": "x", "levelno": 30, "msg": "%d items", "args": ("three",), "who": object()})
    )
    (event,) = events(session)
    assert event.message == "'%d items' ('three',)"
    assert event.data["who"].startswith("<object")
    assert session.stats()["repaired"] == {"event": 1}


@pytest.mark.parametrize(
    ("number", "name"), [(5, "debug"), (20, "info"), (25, "info"), (30, "warning"), (60, "critical")]
)
def test_levels_between_the_standard_ones_count_as_the_lower_one(number, name):
    assert logs.level_name(number) == name


def test_our_own_log_does_not_feed_itself(session):
    handler = datacat.LogHandler(session)
    handler.handle(logging.makeLogRecord({"name": "datacat.worker", "levelno": 20, "msg": "x"}))
    handler.handle(logging.makeLogRecord({"name": "datacat", "levelno": 20, "msg": "x"}))
    handler.handle(logging.makeLogRecord({"name": "datacatalog", "levelno": 20, "msg": "kept"}))
    assert [event.message for event in events(session)] == ["kept"]


def test_without_a_session_the_newest_one_is_used_and_none_is_no_error(session):
    handler = datacat.LogHandler()
    handler.handle(logging.makeLogRecord({"name": "x", "levelno": 20, "msg": "kept"}))
    session.end()
    handler.handle(logging.makeLogRecord({"name": "x", "levelno": 20, "msg": "nobody"}))
    assert [getattr(event, "message", "") for event in events(session)] == ["kept", ""]


def test_stack_info_becomes_the_stack(session, logger):
    logger.info("here", stack_info=True)
    (event,) = events(session)
    assert "test_stack_info_becomes_the_stack" in "\n".join(event.stacktrace)
