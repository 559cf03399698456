"""Sign-ins: what is kept, how long it lasts, what may be in a cookie and where a sign-in may lead."""

import json

import pytest

from datacat.server.signin import FILE, IDLE_S, LIFE_S, SignIns, cookie_of, is_token, local_path, set_cookie, token_of

US = 1_000_000


class Clock:
    now = 1_800_000_000 * US

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_cookie_stands_for_its_key_until_it_is_ended(clock):
    known = SignIns(None, clock)
    text = known.begin("k1")
    assert known.key_id(text) == "k1"
    assert known.key_id(text + "x") == known.key_id("") == ""
    known.end(text)
    assert known.key_id(text) == ""


def test_each_sign_in_has_a_new_cookie_and_ends_the_one_before(clock):
    known = SignIns(None, clock)
    first = known.begin("k1")
    second = known.begin("k1", first)
    assert first != second
    assert (known.key_id(first), known.key_id(second)) == ("", "k1")


def test_a_sign_in_that_is_not_used_is_over_and_none_lasts_for_ever(clock):
    known = SignIns(None, clock)
    text, begun = known.begin("k1"), clock.now
    while clock.now - begun < (LIFE_S - IDLE_S) * US:
        clock.now += (IDLE_S - 1) * US
        assert known.key_id(text) == "k1"
    clock.now = begun + (LIFE_S + 1) * US
    assert known.key_id(text) == ""
    text = known.begin("k1")
    clock.now += (IDLE_S + 1) * US
    assert known.key_id(text) == ""


def test_sign_ins_survive_a_restart_and_the_file_has_no_cookie(clock, tmp_path):
    known = SignIns(tmp_path, clock)
    text, gone = known.begin("k1"), known.begin("k2")
    known.end(gone)
    again = SignIns(tmp_path, clock)
    assert (again.key_id(text), again.key_id(gone)) == ("k1", "")
    kept = (tmp_path / FILE).read_text()
    assert text not in kept
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "{", json.dumps({"version": 2, "sign_ins": {}}), "[]"])
def test_a_file_that_cannot_be_read_signs_everybody_out(clock, tmp_path, content):
    (tmp_path / FILE).write_text(content)
    known = SignIns(tmp_path, clock)
    assert known.key_id(known.begin("k1")) == "k1"


def test_the_number_of_sign_ins_is_bounded_and_the_least_used_one_goes(clock, monkeypatch):
    monkeypatch.setattr("datacat.server.signin.MAX_SIGN_INS", 3)
    known = SignIns(None, clock)
    texts = []
    for _ in range(4):
        clock.now += US
        texts.append(known.begin("k"))
    assert [known.key_id(text) for text in texts] == ["", "k", "k", "k"]


def test_cookies_are_kept_from_scripts_and_other_sites():
    assert set_cookie("abc", secure=False).startswith("datacat=abc; Path=/; Max-Age=")
    told = set_cookie("abc", secure=True)
    assert told.startswith("__Host-datacat=abc; ")
    for word in ("HttpOnly", "SameSite=Strict", "Secure", "Path=/"):
        assert word in told
    assert "Domain" not in told
    assert "Max-Age=0;" in set_cookie("", secure=False)


def test_a_cookie_is_found_among_others():
    assert cookie_of({"HTTP_COOKIE": "a=b; datacat=abc; c=d"}) == "abc"
    assert cookie_of({"HTTP_COOKIE": "datacat=old; __Host-datacat=new"}) == "new"
    for told in ("", "datacat", "=;;", "\x00=", "a=b"):
        assert cookie_of({"HTTP_COOKIE": told}) == ""


def test_a_form_needs_the_token_of_its_cookie():
    assert is_token(token_of("one"), "one")
    assert not is_token(token_of("two"), "one")
    assert not is_token("", "one")
    assert not is_token(token_of(""), "")


@pytest.mark.parametrize("path", ["/", "/sessions?q=a%20b&status=hung", "/crashes/abc"])
def test_a_sign_in_leads_back_to_the_page(path):
    assert local_path(path) == path


@pytest.mark.parametrize(
    "wanted",
    ["", "x", "//evil.example", "/\\evil.example", "https://evil.example/", "javascript:alert(1)", "/a\r\nSet-Cookie: x",
     "/sign-out", "/sign-in?next=/", "/ä", "/" + "a" * 5000],
)  # fmt: skip
def test_a_sign_in_leads_nowhere_else(wanted):
    assert local_path(wanted) == "/"
