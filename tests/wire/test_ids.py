"""Ids have one form, sort by time, and nothing else is taken for one."""

import os
import uuid

import pytest

from datacat.errors import WireError
from datacat.wire.ids import session_id, stream_id, uuid7


def test_our_ids_are_uuids_of_version_7_and_sort_by_time():
    ids = [uuid7(ms, os.urandom(10)) for ms in (0, 1, 1_769_860_800_000, 1_769_860_800_001, 2**48 - 1)]

    assert ids == sorted(ids)
    assert all(uuid.UUID(text).version == 7 and uuid.UUID(text).variant == uuid.RFC_4122 for text in ids)
    assert all(session_id(text) == text for text in ids)


def test_an_id_in_capitals_is_the_same_id():
    text = uuid7(5, bytes(10))

    assert session_id(text.upper()) == text


@pytest.mark.parametrize(
    "text", ["", "1", "../../etc/passwd", "g" * 36, "{" + "0" * 36 + "}", 7, None, "0" * 32 + "\n"]
)
def test_what_is_no_uuid_is_refused(text):
    with pytest.raises(WireError):
        session_id(text)


@pytest.mark.parametrize("text", ["", "a/b", "..", "x" * 65, "ä", "a\n", None])
def test_what_is_no_stream_id_is_refused(text):
    with pytest.raises(WireError):
        stream_id(text)
