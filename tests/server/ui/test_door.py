"""Signing in and out through the pages: what the cookie opens and what it does not, and pages that tell of problems."""

import re
from urllib.parse import urlencode

import pytest

from datacat.server.config import Config

HTML = {"Accept": "text/html,application/xhtml+xml"}
FORM = {**HTML, "Content-Type": "application/x-www-form-urlencoded", "Origin": "http://localhost:8080"}
READS = "/api/sessions"


@pytest.fixture
def keyed(make_server, tmp_path):
    return make_server(folder=tmp_path)


def sign_in(server, key, **more):
    return server.request("POST", "/sign-in", body=urlencode({"key": key, **more}).encode(), headers=FORM)


def cookie_of(answer):
    return {"Cookie": answer.header("set-cookie").partition(";")[0]}


def signed_in(server, role="read", *products, **more):
    return cookie_of(sign_in(server, server.key(role, *products, **more)))


def test_a_page_leads_to_the_sign_in_and_the_sign_in_back_to_the_page(keyed):
    key = keyed.key("read")
    answer = keyed.get("/sessions?status=hung&q=a%26b", headers=HTML)
    assert answer.status == 302
    page = keyed.get(answer.header("location"), headers=HTML)
    assert page.status == 200
    wanted = re.search(r'name="next" value="([^"]+)"', page.body.decode())[1].replace("&amp;", "&")
    assert wanted == "/sessions?status=hung&q=a%26b"
    done = sign_in(keyed, key, next=wanted)
    assert (done.status, done.header("location")) == (303, wanted)
    assert keyed.get(wanted, headers={**HTML, **cookie_of(done)}).status == 200
    assert keyed.get(READS, headers=cookie_of(done)).status == 200


def test_the_cookie_of_a_reader_opens_nothing_but_reading(keyed):
    keyed.key("ingest")
    for role in ("read", "admin"):
        cookie = signed_in(keyed, role)
        told = {"product": "p", "version": "1"}
        assert keyed.post(READS, json=told, headers=cookie).status == 401
        assert keyed.request("DELETE", f"{READS}/x", headers=cookie).status == 401
        assert keyed.post("/api/keys", json={"name": "n", "role": "admin"}, headers=cookie).status == 401
    assert keyed.get("/api/keys", headers=cookie).status == 200
    assert keyed.get("/api/keys", headers=signed_in(keyed, "read")).status == 403


def test_the_cookie_sees_the_products_of_its_key(keyed):
    admin = keyed.with_key(keyed.key("admin"))
    for product in ("editor", "viewer"):
        admin.post(READS, json={"product": product, "version": "1"})
    page = keyed.get("/sessions", headers={**HTML, **signed_in(keyed, "read", "viewer")}).body.decode()
    assert "viewer</a>" in page
    assert "editor</a>" not in page


def test_a_revoked_or_expired_key_ends_its_sign_ins_at_once(keyed):
    cookie = signed_in(keyed, expires_at=keyed.now_us + 60_000_000)
    assert keyed.get("/", headers=cookie).status == 200
    keyed.now_us += 61_000_000
    assert keyed.get("/", headers=cookie).status == 401
    cookie = signed_in(keyed)
    key = keyed.ring.keys[-1]
    keyed.ring.file.remove(key.id)
    keyed.ring.reload()
    assert keyed.get("/", headers=cookie).status == 401


def test_wrong_keys_and_keys_for_writing_do_not_sign_in(keyed):
    key = keyed.key("ingest")
    for text, status, words in (("", 401, "not known"), ("dcat_x_y", 401, "not known"), (key, 403, "may not read")):
        answer = sign_in(keyed, text)
        assert answer.status == status
        assert words in answer.body.decode()
        assert answer.header("set-cookie") is None


def test_too_many_wrong_keys_are_told_so_on_the_page(make_server, tmp_path):
    server = make_server(Config(wrong_keys_per_minute=2), folder=tmp_path)
    key = server.key("read")
    assert [sign_in(server, "dcat_x_y").status for _ in range(3)] == [401, 401, 429]
    assert sign_in(server, key).status == 303


def test_signing_out_needs_the_token_of_the_page(keyed):
    cookie = signed_in(keyed)
    token = re.search(r'name="token" value="(\w+)"', keyed.get("/", headers={**HTML, **cookie}).body.decode())[1]

    def leave(**told):
        return keyed.request("POST", "/sign-out", body=urlencode(told).encode(), headers={**FORM, **cookie})

    for told in ({}, {"token": "x"}, {"token": token[:-1]}):
        assert leave(**told).status == 403
    assert keyed.get("/", headers=cookie).status == 200
    done = leave(token=token)
    assert (done.status, done.header("location")) == (303, "/sign-in")
    assert "Max-Age=0" in done.header("set-cookie")
    assert keyed.get("/", headers=cookie).status == 401
    assert [act["act"] for act in keyed.audit.newest_first()][:2] == ["signed_out", "signed_in"]


def test_a_page_of_another_site_cannot_sign_in_or_out(keyed):
    key = keyed.key("read")
    foreign = {**FORM, "Origin": "https://evil.example"}
    for path in ("/sign-in", "/sign-out"):
        answer = keyed.request("POST", path, body=urlencode({"key": key}).encode(), headers=foreign)
        assert answer.status == 403
    json = {**FORM, "Content-Type": "text/plain"}
    assert keyed.request("POST", "/sign-in", body=b"key=x", headers=json).status == 415
    assert keyed.get("/sign-in", headers={**HTML, "Host": "evil.example"}).status == 403


def test_a_link_of_another_site_finds_the_reader_signed_in(keyed):
    """A strict cookie does not come with it; the page that is shown for a moment asks again, as our own."""
    cookie = signed_in(keyed)
    answer = keyed.get("/sessions?q=%22%3E", headers={**HTML, "Sec-Fetch-Site": "cross-site"})
    assert answer.status == 200
    assert 'http-equiv="refresh" content="0; url=/sessions?q=%22%3E"' in answer.body.decode()
    again = keyed.get("/sessions", headers={**HTML, **cookie, "Sec-Fetch-Site": "same-origin"})
    assert again.status == 200


def test_who_is_signed_in_or_needs_no_key_is_not_asked(keyed, server):
    cookie = signed_in(keyed)
    assert keyed.get("/sign-in?next=/releases", headers=cookie).header("location") == "/releases"
    assert server.get("/sign-in", headers=HTML).header("location") == "/"
    assert "Sign out" not in server.get("/", headers=HTML).body.decode()


def test_a_part_of_an_open_page_makes_it_load_again_when_the_sign_in_is_over(keyed):
    keyed.key("read")
    answer = keyed.get("/overview/now", headers={**HTML, "HX-Request": "true"})
    assert (answer.status, answer.header("hx-refresh")) == (401, "true")


def test_over_tls_the_cookie_is_for_tls_alone(make_server, tmp_path):
    server = make_server(Config(trusted_proxies=("127.0.0.1",)), folder=tmp_path)
    key = server.key("read")
    assert "Secure" not in sign_in(server, key).header("set-cookie")
    body = urlencode({"key": key}).encode()
    for headers, environ in (({"X-Forwarded-Proto": "https"}, {}), ({}, {"wsgi.url_scheme": "https"})):
        answer = server.request("POST", "/sign-in", body=body, headers={**FORM, **headers}, environ=environ)
        assert answer.header("set-cookie").startswith("__Host-datacat=")
        assert "Secure" in answer.header("set-cookie")
        assert server.get("/", headers=cookie_of(answer)).status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nothing", 404), ("/sessions/01890a5d-ac96-774b-bcce-000000000000", 404), ("/sessions?colour=red", 400)],
)
def test_a_browser_is_shown_a_page_of_a_problem_and_a_program_its_document(server, path, status):
    page = server.get(path, headers=HTML)
    assert page.status == status
    assert page.header("content-type").startswith("text/html")
    assert "default-src 'none'" in page.header("content-security-policy")
    assert f"HTTP status {status}" in page.body.decode()
    assert server.get(path).header("content-type") == "application/problem+json"


def test_a_problem_of_the_api_stays_a_document(server):
    assert server.get("/api/nothing", headers=HTML).header("content-type") == "application/problem+json"


def test_a_failure_of_the_server_is_a_page_that_says_nothing_about_the_inside(server, monkeypatch):
    monkeypatch.setattr(server.store, "stats", lambda: 1 / 0)
    page = server.get("/service", headers=HTML)
    assert page.status == 500
    assert "ZeroDivision" not in page.body.decode()
    assert "To the overview" in page.body.decode()


def test_without_a_key_a_stranger_is_told_in_a_page(server):
    page = server.get("/", headers=HTML, environ={"REMOTE_ADDR": "192.0.2.1"})
    assert page.status == 403
    assert "only programs on this machine" in page.body.decode()
