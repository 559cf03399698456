"""The pages as they leave the server: everything escaped, a strict policy, and what each of them says."""

import re

import pytest
from fleet import seed
from storing import line

from datacat.server.query import machines
from datacat.server.query.ground import Ground
from datacat.server.ui import operation
from datacat.server.ui.assets import Assets
from datacat.server.ui.frame import Asker, Templates
from datacat.server.ui.words import measured
from datacat.store import Batch
from datacat.wire.records import Dropped

EVIL = "<script>alert(1)</script>\"'&"
PLACES = ("/", "/sessions", "/crashes", "/hangs", "/releases", "/machines", "/service")


def addresses(page):
    return re.findall(r'(?:href|src)="([^"]+)"', page.body.decode())


def test_values_are_text_and_never_markup(server):
    session_id = server.session(product=EVIL, version=EVIL, hostname=EVIL, state={EVIL: EVIL})
    event = {"name": EVIL, "message": EVIL, "data": {EVIL: EVIL}, "stacktrace": [EVIL], "exception_type": EVIL}
    server.post(f"/api/sessions/{session_id}/events", json=event)
    server.post(f"/api/sessions/{session_id}/metrics", json={"name": EVIL, "value": 1, "unit": EVIL})
    server.post(f"/api/sessions/{session_id}/crash", json={"reason": EVIL})
    server.now_us += 1_000_000
    own = f"/sessions/{session_id}"
    for path in (
        "/",
        "/sessions",
        "/releases",
        own,
        f"{own}/moment",
        f"{own}/headline",
        "/sessions?q=%3Cscript%3Ealert(1)%3C/script%3E",
    ):
        page = server.get(path)
        assert page.status == 200, path
        assert b"<script>" not in page.body
        assert b"\"'&" not in page.body
        assert b"&lt;script&gt;" in page.body, path


@pytest.mark.parametrize("place", PLACES)
def test_pages_allow_only_our_own_scripts_and_no_frames(server, place):
    server.session()
    page = server.get(place)
    assert page.header("content-type") == "text/html; charset=utf-8"
    policy = page.header("content-security-policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert b" style=" not in page.body
    assert b"<style" not in page.body
    assert re.findall(rb"<script(?![^>]*src=)", page.body) == []
    assert page.header("x-content-type-options") == "nosniff"


def test_everything_a_page_loads_is_ours_and_kept_for_good(server):
    session_id = server.session()
    loaded = {link for path in (*PLACES, f"/sessions/{session_id}") for link in addresses(server.get(path))}
    files = {link for link in loaded if link.startswith("/static/")}
    assert len(files) > 5
    assert not [link for link in loaded if "//" in link]
    for file in files:
        answer = server.get(file)
        assert answer.status == 200, file
        assert "immutable" in answer.header("cache-control")
    assert server.get("/static/0/nothing.css").status == 404
    assert server.get("/static/0/..%2ftemplates%2fbase.html").status == 404


def test_the_first_view_is_small(server):
    """All that a browser fetches for the overview, compressed, is under 150 KB."""
    seed(server.store, server.now_us, sessions=60, long_events=0)
    page = server.get("/", headers={"Accept-Encoding": "gzip"})
    files = [link for link in addresses(server.get("/")) if link.startswith("/static/")]
    sizes = [len(server.get(file, headers={"Accept-Encoding": "gzip"}).body) for file in files]
    assert len(page.body) + sum(sizes) < 150_000


def test_the_overview_tells_what_is_open_hung_and_crashed_and_how_each_product_does(server):
    assert b"There are no sessions yet" in server.get("/").body
    seed(server.store, server.now_us, long_events=0)
    page = server.get("/").body.decode()
    for product in ("editor", "viewer", "render-farm", "sync", "indexer"):
        assert f'/releases?product={product}"' in page
    now = server.get("/overview/now").body.decode()
    told = {name: int(count) for name, count in re.findall(r"</svg> (\w+)</span><a class=\"value[^>]*>(\d+)<", now)}
    row = server.get("/api/query/summary?from=-24h").json["rows"][0]
    assert told == {"Open": row["open"], "Hung": row["hung_now"], "Crashed": row["crashed"]}
    assert told["Hung"] > 0


def test_the_list_of_sessions_has_pages_filters_and_an_order(server):
    assert b"No session matches" in server.get("/sessions?status=hung").body
    made = []
    for number in range(51):
        server.now_us += 1
        made.append(server.session(product=f"app{number:02}"))
    first = server.get("/sessions").body.decode()
    assert made[-1] in first
    assert f"/sessions/{made[0]}" not in first
    older = re.search(r'rel="next" href="([^"]+)"', first)[1].replace("&amp;", "&")
    assert made[0] in server.get(older).body.decode()
    assert made[7] in server.get("/sessions?q=app07&status=active").body.decode()
    ordered = re.findall(
        r'class="title" href="/sessions/[^"]+">(app\d\d)<', server.get("/sessions?sort=product").body.decode()
    )
    assert ordered == [f"app{number:02}" for number in range(50)]
    assert server.get("/sessions?status=odd").status == 400
    assert server.get("/sessions?colour=red").status == 400


def test_a_live_list_tells_what_is_new_and_how_shown_sessions_go_on(server):
    session_id = server.session()
    link = re.search(r'hx-get="(/sessions/live[^"]+)"', server.get("/sessions").body.decode())[1].replace("&amp;", "&")
    assert "new session" not in server.get(link).body.decode()
    server.now_us += 10
    server.session()
    server.post(f"/api/sessions/{session_id}/end")
    told = server.get(link).body.decode()
    assert "1 new session:" in told
    assert f'id="status-{session_id}"' in told
    assert "is-ended" in told


def test_a_session_page_says_in_one_sentence_how_it_ended_and_why(server):
    session_id = server.session()
    server.now_us += 192_000_000
    server.post(f"/api/sessions/{session_id}/crash", json={"reason": "exit_code"})
    page = server.get(f"/sessions/{session_id}").body.decode()
    assert re.search(r"<h1>editor 1\.2 crashed: exit.code, 3 min 12 s after it started</h1>", page)


def test_a_timeline_has_every_event_change_and_metric(server):
    fleet = seed(server.store, server.now_us, sessions=18, long_events=300)
    session_id = fleet.named["long"]
    told = server.get(f"/sessions/{session_id}/timeline").json
    head = server.store.head(session_id)
    assert len(told["events"]["t"]) == head.counts["events"]
    assert len(told["changes"]) == head.counts["states"] + 1
    assert sum(len(chart["t"]) for chart in told["metrics"]) == head.counts["metrics"]
    assert told["status"][-1][1] == "crashed"
    assert told["from"] + told["status"][-1][0] == head.ended_at


def test_a_moment_shows_the_state_of_then_and_what_changed(server):
    session_id = server.session(state={"page": 1})
    server.now_us += 1_000_000
    server.post(f"/api/sessions/{session_id}/state", json={"state": {"page": 2, "zoom": 3}})
    then, server.now_us = server.now_us, server.now_us + 1_000_000
    server.post(f"/api/sessions/{session_id}/state", json={"state": {"page": None}})
    page = server.get(f"/sessions/{session_id}/moment?at={then}").body.decode()
    assert re.search(r'class="changed"><th scope="row">page</th><td><code>2</code></td><td><code>1</code>', page)
    assert re.search(
        r'class="changed"><th scope="row">zoom</th><td><code>3</code></td><td><span class="soft">not there', page
    )
    later = server.get(f"/sessions/{session_id}/moment?at={server.now_us}").body.decode()
    assert re.search(r'page</th><td><span class="soft">deleted', later)
    both = server.get(f"/sessions/{session_id}/moment?at={server.now_us}&since={then - 1}").body.decode()
    assert both.count('class="changed"') == 2


def test_a_page_of_an_unknown_session_is_not_found(server):
    assert server.get("/sessions/nonsense").status == 404
    assert server.get("/sessions/01890a5d-ac96-774b-bcce-000000000000").status == 404


def test_groups_have_pages_with_a_stack_sessions_and_versions(server):
    assert b"Nothing crashed in this span" in server.get("/crashes").body
    fleet = seed(server.store, server.now_us, long_events=0)
    for kind in ("crashes", "hangs"):
        listed = server.get(f"/{kind}?sort=-last_seen_at").body.decode()
        signatures = re.findall(rf'href="/{kind}/(\w+)"', listed)
        rows = server.get(f"/api/query/{'crashes' if kind == 'crashes' else 'hangs/groups'}?from=-30d").json["rows"]
        assert set(signatures) == {row["signature"] for row in rows}
        for signature in signatures:
            assert server.get(f"/{kind}/{signature}").status == 200
    page = server.get(f"/crashes/{server.store.head(fleet.first('signal')).crash.signature}").body.decode()
    assert 'class="own"' in page
    assert 'class="library"' in page
    assert server.get("/crashes/nothing").status == 404
    assert server.get("/crashes?span=1y").status == 400


def test_a_group_tells_its_oldest_and_newest_version_whichever_of_them_failed_last(server):
    for version in ("1.0", "1.1", "1.0"):
        session_id = server.session(version=version)
        server.post(f"/api/sessions/{session_id}/crash", json={"reason": "exception"})
        server.now_us += 1_000_000
    (row,) = server.get("/api/query/crashes").json["rows"]
    page = server.get(f"/crashes/{row['signature']}").body.decode()
    assert "oldest version 1.0" in page
    assert "newest version 1.1" in page


def test_releases_are_compared_two_at_a_time(server):
    seed(server.store, server.now_us, long_events=0)
    page = server.get("/releases?product=editor&compare=2.4.0&compare=2.3.1").body.decode()
    assert "2.3.1 against 2.4.0" in page
    row = {r["version"]: r for r in server.get("/api/query/summary?from=-30d&by=version&product=editor").json["rows"]}
    assert f"{row['2.4.0']['crash_free_rate'] * 100:.1f} %" in page
    part = re.search(r'hx-get="(/releases/metrics[^"]+)"', page)[1].replace("&amp;", "&")
    assert "export.duration" in server.get(part).body.decode()
    assert "Mark exactly two versions" in server.get("/releases?product=editor&compare=2.4.0").body.decode()


def test_machines_show_their_daemons_and_the_service_its_own_health(server):
    server.session(machine_id="m" * 32, hostname="desk")
    server.post("/api/daemons", json={"id": "d1", "machine_id": "m" * 32, "pid": 77, "version": "0.1.0"})
    server.now_us += 1_000_000
    page = server.get("/machines").body.decode()
    assert "connected" in page
    assert "pid 77" in page
    assert "Memory of the server" in server.get("/service").body.decode()


def test_a_machine_whose_clock_is_wrong_or_whose_spool_is_full_shows_it(server):
    server.session(machine_id="m" * 32, hostname="desk")
    server.now_us += 1_000_000
    told = {"id": "d1", "machine_id": "m" * 32, "pid": 77, "version": "0.1.0", "sent_at": server.now_us + 90_000_000}
    server.post("/api/daemons", json={**told, "spool_bytes": 5_000_000})
    page = server.get("/machines").body.decode()
    assert "clock 1 min 30 s ahead" in page
    assert "5.0 MB in the spool" in page
    server.post("/api/daemons/d1/heartbeat", json={"sent_at": server.now_us - 300_000, "spool_bytes": 0})
    page = server.get("/machines").body.decode()
    assert "clock" not in page
    assert "0 bytes in the spool" in page
    for wrong in (-1, "x", True, 1.5, 1 << 63):
        assert server.post("/api/daemons/d1/heartbeat", json={"spool_bytes": wrong}).status == 422


def test_machines_are_counted_as_the_summary_counts_them(server):
    seed(server.store, server.now_us, long_events=0)
    asker = Asker(Ground(server.store), server.now_us, frozenset())
    mine = {row.machine: row for row in machines.machines(asker.read("summary", {"from": "-7d"}), asker.ground, 100)}
    rows = server.get("/api/query/summary?from=-7d&by=machine&limit=100").json["rows"]
    assert set(mine) == {row["machine"] for row in rows}
    for row in rows:
        one = mine[row["machine"]]
        assert (one.sessions, one.started, one.open) == (row["sessions"], row["started"], row["open"])
        assert row["crash_free_rate"] == (1 - one.crashed / one.started if one.started else None)
    only = machines.machines(asker.read("summary", {"from": "-7d", "product": "sync"}), asker.ground, 100)
    assert {row.machine for row in only} < set(mine)
    assert len(machines.machines(asker.read("summary", {"from": "-7d"}), asker.ground, 3)) == 3


def test_a_reader_of_one_product_sees_no_daemon_s_other_sessions(make_server, tmp_path):
    server = make_server(folder=tmp_path)
    admin = server.with_key(server.key("admin"))
    made = [admin.post("/api/sessions", json={"product": product, "version": "1", "machine_id": "m" * 32}).json["id"]
            for product in ("editor", "viewer")]  # fmt: skip
    admin.post("/api/daemons", json={"id": "d1", "machine_id": "m" * 32, "sessions": made})
    server.now_us += 1_000_000
    assert "2 sessions" in admin.get("/machines").body.decode()
    page = server.with_key(server.key("read", "viewer")).get("/machines").body.decode()
    assert "connected" in page
    assert "2 sessions" not in page


def test_a_timeline_is_asked_for_again_only_when_there_is_more(server):
    session_id = server.session()
    path = f"/sessions/{session_id}"
    for number in range(3):
        server.now_us += 1_000_000
        server.post(f"{path.replace('/sessions', '/api/sessions')}/events", json={"name": f"e{number}"})
    whole = server.get(f"{path}/timeline").json
    assert whole["open"]
    assert server.get(f"{path}/timeline?seen={whole['updated']}").status == 204
    after = whole["from"] + whole["events"]["t"][1]
    more = server.get(f"{path}/timeline?seen={whole['updated'] - 1}&since={after}").json
    assert more["events"]["t"] == whole["events"]["t"][1:]
    assert more["status"] == whole["status"]
    assert server.get(f"{path}/timeline?since=x").status == 400


def test_what_the_sessions_of_a_group_have_in_common_is_told_and_nothing_where_there_is_nothing(server):
    fleet = seed(server.store, server.now_us, long_events=0)
    signature = server.store.head(fleet.first("signal")).crash.signature
    page = server.get(f"/groups/{signature}/suspects").body.decode()
    rows = server.get(f"/api/query/suspects?from=-90d&signature={signature}").json["rows"]
    assert [re.escape(row["value"]) in re.escape(page) for row in rows[:12]] == [True] * min(12, len(rows))
    assert server.get("/groups/nothing/suspects").body.strip() == b""


def test_the_page_of_a_group_counts_its_sessions_by_version_and_host(server):
    fleet = seed(server.store, server.now_us, long_events=0)
    for kind, end in (("crashes", "exception"), ("hangs", "hang")):
        head = server.store.head(fleet.first(end))
        signature = head.crash.signature if kind == "crashes" else head.hangs[0].signature
        page = server.get(f"/{kind}/{signature}").body.decode()
        rows = server.get(f"/api/query/sessions?from=0&at=start&signature={signature}&limit=1000").json["rows"]
        if kind == "crashes":
            rows = [row for row in rows if row["status"] == "crashed"]
        assert set(re.findall(r'href="/sessions/([\w-]+)">', page.split("Newest sessions")[1])) == {
            row["id"] for row in rows
        }
        for version in {row["version"] for row in rows}:
            count = sum(row["version"] == version for row in rows)
            assert re.search(rf'<td>{re.escape(version)}</td><td class="number">{count}</td>', page)


def test_the_ledger_tells_what_was_lost_and_why(server):
    session_id = server.session()
    server.own.store.append(session_id, Batch("app", [line(Dropped(server.now_us, {"spool_full": 7}))], 0, 40),
                            received_us=server.now_us)  # fmt: skip
    page = server.get(f"/sessions/{session_id}").body.decode()
    assert re.search(r'<dt>Dropped: spool full</dt><dd class="is-crashed">7', page)
    assert "<dt>Acknowledged</dt>" in page


def test_the_service_page_has_alerts_jobs_and_the_watchdog(server):
    page = server.get("/service").body.decode()
    assert "No alerts are set" in page
    runs = [operation.Run("sweep", 5.0, 3.0, 0), operation.Run("tend", 60.0, 400.0, 2)]
    told = {"alerts": [{"name": "calm", "rule": "hung", "product": "", "webhooks": ["chat"], "firing": []},
                       {"name": "loud", "rule": "crash_rate", "product": "editor", "webhooks": [],
                        "firing": [{"title": "2.4.0 crashes", "since": "2026-01-01T00:00:00Z"}]}],
            "webhooks": [], "waiting": 1}  # fmt: skip
    page = Templates(Assets()).page(
        "service.html", "/service", pulse={"now": {}, "charts": []}, store={}, alerts=told, role="read",
        upkeep=operation.Upkeep(runs, 30.0, False), retention_days=30, keys=None,
    ).body.decode()  # fmt: skip
    assert "2.4.0 crashes" in page
    assert "1 message not sent yet" in page
    assert page.count("on time") == page.count('is-hung">late') == 1
    assert "the watchdog does not beat" in page
    assert "You came with a read key" in page


def test_a_cursor_of_another_list_is_refused(server):
    assert server.get("/sessions?cursor=nonsense").status == 400


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [(274_000_000, "By", "274 MB"), (0.25, "s", "250 ms"), (0.5, "1", "0.5"), (3, "{frame}", "3"), (20, "Cel", "20 Cel"),
     (None, "By", "–"), (-2.0, "s", "-2 s")],
)  # fmt: skip
def test_metrics_are_written_with_their_unit(value, unit, told):
    assert measured(value, unit).replace(".0 ", " ") == told
