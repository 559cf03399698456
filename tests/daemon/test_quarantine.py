"""Records that a server refuses for good: kept with the reason, counted, and never sent again."""

import pytest
from daemon_helpers import Journal, now_us

from datacat.daemon import quarantine
from datacat.daemon.delivery import Delivery
from datacat.daemon.uplink import Uplink
from datacat.errors import UplinkError
from datacat.wire.layout import QUARANTINE_FILE
from datacat.wire.records import Event


@pytest.fixture
def ship(server):
    links = []

    def make(journal):
        links.append(Uplink(server.url))
        return Delivery(journal.folder, journal.meta, links[-1], daemon_id="d", max_records=1000)

    yield make
    for link in links:
        link.close()


def refusing(server, monkeypatch, status, word=b"poison"):
    """Let the server refuse every batch that has the word in it."""
    answer = server._answer

    def refuse(method, path, query, body):
        if path.endswith("/batches") and word in body:
            return status, {"detail": "no such thing is stored here", "boot": server.boot}
        return answer(method, path, query, body)

    monkeypatch.setattr(server, "_answer", refuse)


@pytest.mark.parametrize("status", [400, 402, 413, 414, 415, 422, 431, 451])
def test_a_refused_record_is_kept_with_the_reason_and_the_rest_arrives(server, spool, ship, monkeypatch, status):
    refusing(server, monkeypatch, status)
    journal = Journal(spool)
    journal.append(*(Event(t=now_us(), name="poison" if n == 7 else f"e{n}") for n in range(20)))
    one = ship(journal)
    one.ship()
    assert [row["name"] for row in server.records(journal.id, "event")] == [f"e{n}" for n in range(20) if n != 7]
    assert [row["counts"] for row in server.records(journal.id, "dropped")] == [{"refused": 1}]
    (kept,) = quarantine.entries(journal.folder)
    assert (kept.status, kept.detail, '"poison"' in kept.record) == (status, "no such thing is stored here", True)
    assert server.ledgers[journal.id]["app"]["records"] == 21
    sent = len(server.requests)
    one.ship()
    assert len(server.requests) == sent


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407, 408, 421, 425, 426, 429, 500, 503])
def test_what_may_pass_puts_nothing_into_quarantine(server, spool, ship, monkeypatch, status):
    refusing(server, monkeypatch, status)
    journal = Journal(spool)
    journal.append(Event(t=now_us(), name="poison"))
    one = ship(journal)
    with pytest.raises(UplinkError):
        one.ship()
    assert quarantine.entries(journal.folder) == []
    assert one.unacked_bytes() > 0


def test_a_server_that_refuses_everything_gets_nothing_dropped(server, spool, ship, monkeypatch):
    refusing(server, monkeypatch, 400, b"")
    journal = Journal(spool)
    journal.append(*(Event(t=now_us(), name="a") for _ in range(5)))
    one = ship(journal)
    for _ in range(3):
        with pytest.raises(UplinkError):
            one.ship()
    assert one.unacked_bytes() == journal.end
    assert len(quarantine.entries(journal.folder)) == 1  # the first one, however often it was tried


def test_what_is_too_much_is_only_counted_and_a_torn_line_is_left_out(tmp_path, monkeypatch):
    one = quarantine.Refused(1, "s", 0, 10, 400, "why", "x" * 100)
    assert quarantine.keep(tmp_path, one)
    with (tmp_path / QUARANTINE_FILE).open("ab") as file:
        file.write(b'{"t":2,"stream"')
    assert quarantine.entries(tmp_path) == [one]
    monkeypatch.setattr(quarantine, "MAX_BYTES", 200)
    assert not quarantine.keep(tmp_path, one)
