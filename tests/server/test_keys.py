"""Keys: made from randomness, kept as hashes, known to a running server within a second."""

import json
import os
import stat
import threading

import pytest

from datacat import host
from datacat.errors import HostError, WireError
from datacat.server import keys
from datacat.server.keys import KeyFile, Ring, make

NOW_US = 1_800_000_000_000_000


def key_of(name="fleet", role="ingest", products=(), expires_at=0):
    return make(name, role, products, expires_at, NOW_US)


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_key_is_found_by_its_text(file):
    key, text = key_of()
    other, other_text = key_of("other", "admin")
    file.add(key)
    file.add(other)
    ring = Ring(file)
    assert ring.find(text) == key
    assert ring.find(other_text) == other


def test_the_text_is_nowhere_in_the_folder(file, tmp_path):
    key, text = key_of()
    file.add(key)
    secret = text.split("_", 2)[2]
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_two_keys_have_nothing_in_common():
    texts = [key_of()[1].split("_", 2) for _ in range(200)]
    assert len({key_id for _, key_id, _ in texts}) == len({secret for _, _, secret in texts}) == 200
    assert {len(secret) for _, _, secret in texts} == {43}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text + "x",
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
        lambda text: text.upper(),
        lambda text: text.replace("dcat_", "dcat_x"),
        lambda text: " " + text,
        lambda text: text.split("_")[1],
        lambda text: text + "\0" * 1000,
        lambda text: text + "\udcff",
        lambda text: "x" * 100_000,
    ],
)
def test_another_text_is_no_key(file, change):
    key, text = key_of()
    file.add(key)
    assert Ring(file).find(change(text)) is None


def test_a_wrong_key_costs_one_hash_and_one_comparison_as_a_right_one_does(file, monkeypatch):
    key, text = key_of()
    file.add(key)
    ring = Ring(file)
    calls = []
    compare, digest = keys.hmac.compare_digest, keys._hash
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: calls.append(len(b)) or compare(a, b))
    monkeypatch.setattr(keys, "_hash", lambda text: calls.append("hash") or digest(text))
    for tried in (text, text[:-1] + "!", "dcat_unknown0_" + "x" * 43, "nonsense"):
        calls.clear()
        ring.find(tried)
        assert calls == ["hash", 64]


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "x" * 65}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"role": "root"}, "/role"),
        ({"role": "admin", "products": ("a",)}, "/products"),
        ({"products": ("",)}, "/products"),
        ({"products": ("x" * 201,)}, "/products"),
        ({"expires_at": NOW_US}, "/expires_at"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_by_field(wrong, pointer):
    with pytest.raises(WireError) as caught:
        key_of(**wrong)
    assert caught.value.pointer == pointer


def test_a_name_is_taken_once(file):
    file.add(key_of()[0])
    with pytest.raises(WireError, match="already"):
        file.add(key_of()[0])


def test_a_key_is_removed_by_id_or_by_name(file):
    one, two = key_of("one")[0], key_of("two")[0]
    file.add(one)
    file.add(two)
    assert file.remove("three") is None
    assert file.remove(one.id) == one
    assert file.remove("two") == two
    assert file.read() == []


def test_an_expired_key_is_told_from_one_that_never_was(file):
    key, text = key_of(expires_at=NOW_US + 1)
    file.add(key)
    assert Ring(file).find(text).has_expired(NOW_US + 1)
    assert not key.has_expired(NOW_US)
    assert not key_of()[0].has_expired(2**62)


@pytest.mark.skipif(os.name == "nt", reason="capability: no modes of files here")
def test_nobody_else_may_read_the_file(file, tmp_path):
    old = os.umask(0)
    try:
        file.add(key_of()[0])
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / keys.LOCK_FILE).stat().st_mode) == 0o600


def test_what_root_writes_belongs_to_the_owner_of_the_folder(file, tmp_path):
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("capability: this is not root")
    os.chown(tmp_path, 65534, 65534)
    file.add(key_of()[0])
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {65534}


def test_a_ring_learns_within_a_second_what_a_command_has_changed(file):
    clock = Clock()
    ring = Ring(file, clock)
    assert not ring
    key, text = key_of()
    file.add(key)
    clock.now += keys.LOOK_S / 2
    assert ring.find(text) is None
    clock.now += keys.LOOK_S / 2
    assert ring.find(text) == key
    file.remove(key.id)
    clock.now += keys.LOOK_S
    assert ring.find(text) is None
    assert not ring


def test_a_reload_learns_at_once(file):
    ring = Ring(file, Clock())
    key, text = key_of()
    file.add(key)
    ring.reload()
    assert ring.find(text) == key


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"version": 1}', b'{"version": 1, "keys": [{}]}', b"[]"])
def test_a_file_that_cannot_be_read_stops_the_start_and_no_running_server(file, content, caplog):
    key, text = key_of()
    file.add(key)
    clock = Clock()
    ring = Ring(file, clock)
    file.path.write_bytes(content)
    for _ in range(3):
        clock.now += keys.LOOK_S
        assert ring.find(text) == key
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(HostError) as caught:
        Ring(file)
    assert caught.value.permanent
    assert str(file.path) in str(caught.value)


def test_a_file_of_a_later_version_is_not_guessed(file):
    file.path.write_text(json.dumps({"version": 2, "keys": []}))
    with pytest.raises(HostError, match="version 2"):
        file.read()


def test_many_writers_lose_no_key(file):
    made = [key_of(f"key {number}")[0] for number in range(24)]
    threads = [
        threading.Thread(target=lambda part: [file.add(key) for key in part], args=(made[n::4],)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.id for key in file.read()} == {key.id for key in made}


def test_a_lock_that_nobody_lets_go_is_said(file, tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "_LOCK_S", 0.05)
    with host.lock(tmp_path / keys.LOCK_FILE), pytest.raises(HostError, match="held by another process"):
        file.add(key_of()[0])


def test_a_server_without_a_folder_has_no_keys():
    ring = Ring(None)
    assert not ring
    assert ring.find(key_of()[1]) is None
    assert ring.keys == []
