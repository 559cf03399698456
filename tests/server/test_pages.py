"""The pages: everything escaped, no scripts, a strict policy."""

EVIL = "<script>alert(1)</script>\"'&"


def test_values_are_escaped(server):
    session_id = server.session(product=EVIL, version=EVIL, hostname=EVIL, state={EVIL: EVIL})
    event = {"name": EVIL, "message": EVIL, "data": {EVIL: EVIL}, "stacktrace": [EVIL], "exception_type": EVIL}
    server.post(f"/api/sessions/{session_id}/events", json=event)
    server.post(f"/api/sessions/{session_id}/metrics", json={"name": EVIL, "value": 1, "unit": EVIL})
    server.post(f"/api/sessions/{session_id}/crash", json={"reason": EVIL})
    for path in ("/", f"/sessions/{session_id}", "/?q=%3Cscript%3Ealert(1)%3C/script%3E"):
        page = server.get(path)
        assert page.status == 200
        assert b"<script" not in page.body
        assert b"&lt;script&gt;" in page.body


def test_pages_allow_no_scripts_and_no_frames(server):
    for path in ("/", f"/sessions/{server.session()}"):
        page = server.get(path)
        assert page.header("content-type") == "text/html; charset=utf-8"
        policy = page.header("content-security-policy")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert b" style=" not in page.body
        assert b"<style" not in page.body
        assert page.header("x-content-type-options") == "nosniff"


def test_the_index_lists_sessions_and_leads_to_older_ones(server):
    assert b"There are no sessions yet" in server.get("/").body
    made = []
    for number in range(51):
        server.now_us += 1
        made.append(server.session(product=f"app{number}"))
    first = server.get("/").body.decode()
    assert made[-1] in first
    assert made[0] not in first
    older = first.split('href="/?')[1].split('"')[0].replace("&amp;", "&")
    assert made[0] in server.get(f"/?{older}").body.decode()
    assert b"No session matches" in server.get("/?status=hung").body
    assert made[7] in server.get("/?q=app7&status=active").body.decode()


def test_a_session_page_says_why_it_ended(server):
    session_id = server.session()
    server.post(f"/api/sessions/{session_id}/crash", json={"reason": "exit_code"})
    page = server.get(f"/sessions/{session_id}").body.decode()
    assert "crashed" in page
    assert "exit code" in page
    assert "parent_process_crashed" in page


def test_a_page_of_an_unknown_session_is_not_found(server):
    assert server.get("/sessions/nonsense").status == 404
    assert server.get("/sessions/01890a5d-ac96-774b-bcce-000000000000").status == 404
    assert server.get("/?status=odd").status == 400
