"""Every page in a real Chromium against a real server with 201 sessions, one of them with 20,000 events."""

import json
import subprocess
import sys

import pytest
from browser import Browser
from place import AXE, Place, lacks
from system.box import Box

from datacat.server.keys import KeyFile, make

PAGES = (
    "overview", "sessions", "session", "session-hung", "session-ended", "crashes", "crash-group", "hangs", "hang-group",
    "releases", "machines", "service",
)  # fmt: skip
EVIL = "<script>document.title='taken'</script>\"'><img src=x onerror=\"document.title='taken'\">&"
_SHIFTS = (
    "window.shifts = 0; new PerformanceObserver((list) => { for (const one of list.getEntries()) "
    "if (!one.hadRecentInput) window.shifts += one.value; }).observe({type: 'layout-shift', buffered: true});"
)
APP = """
import datacat, sys
session = datacat.create_session(sys.argv[1], product="live", version="1.0", state={"page": 1})
print(session.session_id, flush=True)
for line in sys.stdin:
    session.log_event(line.strip())
    session.update_state({"page": line.strip()})
session.end()
"""


@pytest.fixture(scope="module")
def able():
    if lack := lacks():
        pytest.skip(f"capability: {lack}")


@pytest.fixture(scope="module")
def place(able, tmp_path_factory):
    with Place(tmp_path_factory.mktemp("fleet")).seeded() as place:
        place.paths = place.pages()
        yield place


@pytest.fixture(scope="module")
def window(able):
    with Browser(zone="America/New_York") as browser:
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=_SHIFTS)
        yield browser


@pytest.fixture
def browser(window):
    window.offline(False)
    window.look()
    yield window
    window.call("Page.navigate", url="about:blank")


@pytest.fixture
def open_page(browser, place):
    def go(name_or_path):
        browser.go(place.url + place.paths.get(name_or_path, name_or_path))
        return browser

    return go


def violations(browser):
    """Return what axe-core finds: (rule, where)."""
    browser.run(AXE.read_text() + ";0")
    told = browser.run(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
        ".then((found) => found.violations.map((one) => [one.id, one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160))]))"
    )
    return [(rule, where) for rule, where in told]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
def test_every_page_is_accessible_fits_and_stays_where_it_is(browser, place, dark, width):
    """axe-core finds nothing; nothing is wider than the window, moves, comes from elsewhere, or complains."""
    browser.look(dark=dark, width=width)
    for name in PAGES:
        browser.go(place.url + place.paths[name])
        assert violations(browser) == [], name
        assert browser.run("document.documentElement.scrollWidth <= innerWidth"), name
        assert browser.run("window.shifts") < 0.1, name
        assert browser.errors == [], name
        assert [url for url in browser.requests if not url.startswith(place.url + "/")] == [], name


def test_times_are_the_readers_and_tell_utc(open_page):
    browser = open_page("session")
    assert browser.run("document.querySelector('[data-zone]').textContent") == "times are America/New_York"
    shown, machine, title = browser.run(
        "(() => { const node = document.querySelector('dl.facts time'); return [node.textContent, node.dateTime, node.title]; })()"
    )
    assert title == machine.replace("T", " ").replace("Z", "") + " UTC"
    assert (
        browser.run(f"new Date({json.dumps(shown)}).getTime()") // 1000
        == browser.run(f"Date.parse('{machine}')") // 1000
    )


def test_every_filter_of_the_list_narrows_it_and_is_a_link(open_page, place):
    browser = open_page("sessions")
    browser.follow(
        "const s = document.querySelector('select[name=status]'); s.value = 'crashed'; s.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    assert set(
        browser.run("[...document.querySelectorAll('tbody[data-rows] .status')].map((node) => node.textContent)")
    ) == {"crashed"}
    browser.run(
        "document.querySelector('input[name=product]').value = 'editor'; document.querySelector('input[name=version]').value = '2.4.0'"
    )
    browser.follow("document.querySelector('.filters').requestSubmit()")
    address = browser.run("location.search")
    assert "status=crashed" in address
    assert "product=editor" in address
    ids = browser.run(
        "[...document.querySelectorAll('tbody[data-rows] a.title')].map((node) => node.pathname.slice(10))"
    )
    rows = place.get(
        "/api/query/sessions?from=0&at=start&status=crashed&product=editor&version=2.4.0&sort=-started_at"
    )["rows"]
    assert ids == [row["id"] for row in rows]
    browser.follow("document.querySelector('thead a[href*=duration]').click()")
    assert browser.run("document.querySelector('th[aria-sort]').textContent") == "Lasted"
    browser.follow("history.back()")
    assert browser.run("location.search") == address
    browser.follow("[...document.querySelectorAll('.filters a')].find((node) => node.textContent === 'Clear').click()")
    browser.follow("document.querySelector('a[rel=next]').click()")
    assert "cursor=" in browser.run("location.search")


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [("hostname=desk-01", "hostname", "desk-01"), ("environment=beta", "environment", "beta"),
     ("end_reason=oom", "end_reason", "oom"), ("has=hang", "hangs", None), ("state=gpu:on", None, None),
     ("q=viewer", "product", "viewer"), ("platform=Windows 11 AMD64", None, None)],
)  # fmt: skip
def test_filters_that_have_no_field_work_from_a_link(open_page, place, query, key, value):
    browser = open_page(f"/sessions?{query}")
    ids = browser.run(
        "[...document.querySelectorAll('tbody[data-rows] a.title')].map((node) => node.pathname.slice(10))"
    )
    rows = place.get(f"/api/query/sessions?from=0&at=start&sort=-started_at&limit=50&{query}")["rows"]
    assert ids == [row["id"] for row in rows]
    assert ids
    if value:
        assert {row[key] for row in rows} == {value}
    if not query.startswith("q="):
        assert browser.run("document.querySelectorAll('.chip').length") == 1
        browser.follow("document.querySelector('.chip a').click()")
        assert browser.run("location.search") == ""


def test_a_brush_of_the_histogram_chooses_a_span(open_page, place):
    browser = open_page("sessions")
    box = browser.until(
        "(() => { const over = document.querySelector('.u-over'); if (!over) return null; over.scrollIntoView({block: 'center'});"
        " const box = over.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })()"
    )
    left, top, width, height = box
    browser.leaving(lambda: browser.drag(left + width * 0.5, top + height / 2, left + width * 0.9))
    told = dict(pair.split("=") for pair in browser.run("location.search")[1:].split("&"))
    assert int(told["from"]) < int(told["to"])
    times = browser.run(
        "[...document.querySelectorAll('tbody[data-rows] time')].map((node) => Date.parse(node.dateTime))"
    )
    assert times
    assert all(int(told["from"]) - 1 <= time <= int(told["to"]) for time in times)
    browser.follow("history.back()")
    assert browser.run("location.search") == ""


def test_keys_move_and_open_and_help(open_page):
    browser = open_page("sessions")
    browser.key("j")
    browser.key("j")
    assert (
        browser.run(
            "[...document.querySelectorAll('tbody[data-rows] tr')].findIndex((row) => row.classList.contains('chosen'))"
        )
        == 1
    )
    browser.key("k")
    wanted = browser.run("document.querySelector('tr.chosen a').pathname")
    assert browser.run("document.activeElement.pathname") == wanted
    browser.leaving(lambda: browser.key("Enter"))
    assert browser.run("location.pathname") == wanted
    browser.key("?")
    assert browser.run("document.getElementById('help').open")
    browser.key("Escape")
    browser.key("/")
    assert browser.run("document.activeElement.id") == "find"
    browser.type("viewer")
    browser.leaving(lambda: browser.key("Enter"))
    assert browser.run("location.search") == "?q=viewer"


def test_arrows_step_from_change_to_change_of_the_state(open_page, place):
    browser = open_page("session")
    data = place.get(f"{place.paths['session']}/timeline")
    stops = sorted({*data["changes"], *(t for t, _ in data["status"])})
    seen = []
    for _ in range(3):
        browser.key("ArrowLeft")
        seen.append(int(browser.run("new URL(location).searchParams.get('at')")) - data["from"])
    last = data["to"] - data["from"]
    assert seen == [stop for stop in reversed(stops) if stop < last][:3]
    browser.key("ArrowRight")
    browser.until("document.querySelector('#moment').getAttribute('aria-busy') === null")
    assert int(browser.run("new URL(location).searchParams.get('at')")) - data["from"] == seen[1]
    changed = browser.run("[...document.querySelectorAll('#moment tr.changed th')].map((node) => node.textContent)")
    assert "document.name" in changed
    address = browser.run("location.href")
    browser.go(address)
    assert browser.run("location.href") == address
    browser.until("document.querySelectorAll('#moment tr.changed').length > 0")


def test_the_last_60_s_are_one_click_and_a_brush_of_the_axis_zooms(open_page, place):
    browser = open_page("session")
    data = place.get(f"{place.paths['session']}/timeline")
    browser.click("[data-last]")
    assert int(browser.run("new URL(location).searchParams.get('from')")) == data["to"] - 60_000_000
    browser.until("document.querySelector('#moment').textContent.includes('what changed in the 1 min before')")
    browser.click("[data-reset]")
    assert browser.run("new URL(location).searchParams.get('from')") is None
    x, y = browser.middle(".lane-plot")
    browser.drag(x, y, x + 200)
    low, high = (int(browser.run(f"new URL(location).searchParams.get('{name}')")) for name in ("from", "to"))
    middle = (data["from"] + data["to"]) / 2
    assert abs(low - middle) < (data["to"] - data["from"]) * 0.02
    assert high > low
    browser.click(".lane-plot")
    assert low <= int(browser.run("new URL(location).searchParams.get('at')")) <= high


def test_thousands_of_events_are_searched_filtered_and_shown_one_by_one(open_page, place):
    browser = open_page("session")
    data = place.get(f"{place.paths['session']}/timeline")
    assert browser.run("document.getElementById('events-count').textContent") == str(len(data["events"]["t"]))
    assert browser.run("document.querySelectorAll('#events .row').length") < 100
    browser.run(
        "const s = document.getElementById('events-search'); s.value = 'plugin'; s.dispatchEvent(new Event('input'))"
    )
    plugin = data["names"].index("plugin_failed")
    found = data["events"]["name"].count(plugin)
    assert (
        browser.run("document.getElementById('events-count').textContent") == f"{found} of {len(data['events']['t'])}"
    )
    browser.run(
        "const l = document.getElementById('events-level'); l.value = '4'; l.dispatchEvent(new Event('change'))"
    )
    assert browser.run("document.querySelectorAll('#events .row').length") == 0
    browser.run("const s = document.getElementById('events-search'); s.value = ''; s.dispatchEvent(new Event('input'))")
    assert browser.run("document.querySelector('#events .row .name').textContent") == "parent_process_crashed"
    browser.click("#events .row")
    browser.until("document.querySelector('#event-detail h3')?.textContent === 'parent_process_crashed'")
    assert "exit_signal" in browser.run("document.querySelector('#event-detail').textContent")
    browser.run(
        "const l = document.getElementById('events-level'); l.value = '0'; l.dispatchEvent(new Event('change')); "
        "document.getElementById('events').scrollTop = 1e9"
    )
    browser.until(
        "[...document.querySelectorAll('#events .row')].at(-1).getAttribute('aria-posinset') === "
        f"'{len(data['events']['t'])}'"
    )


def test_stacks_are_folded_copied_and_lead_into_the_source(open_page, place):
    browser = open_page("session")
    threads = browser.run("[...document.querySelectorAll('.stack details')].map((node) => node.open)")
    assert threads[:2] == [True, False]
    own, library = browser.run(
        "[document.querySelector('.frames .own').textContent, document.querySelector('.frames .library').textContent]"
    )
    assert "/opt/" in own
    assert "/usr/lib" in library
    browser.run(
        "const s = document.getElementById('source-links'); s.value = 'vscode://file/{file}:{line}'; s.dispatchEvent(new Event('change'))"
    )
    assert browser.run("document.querySelector('.frames .own a').href").startswith("vscode://file//opt/")
    browser.run("localStorage.clear()")


def test_groups_releases_and_machines_lead_on(open_page):
    browser = open_page("crashes")
    browser.follow("document.querySelector('td a.title').click()")
    assert browser.run("location.pathname").startswith("/crashes/")
    browser.until("document.body.textContent.includes('What they have in common')")
    browser.follow("document.querySelector('.figure a.value').click()")
    assert "signature=" in browser.run("location.search")
    assert set(
        browser.run("[...document.querySelectorAll('tbody[data-rows] .status')].map((node) => node.textContent)")
    ) == {"crashed"}
    browser = open_page("/hangs?span=7d")
    browser.follow(
        "const s = document.querySelector('select[name=sort]'); s.value = '-last_seen_at'; s.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    assert "span=7d" in browser.run("location.search")
    browser = open_page("/releases?product=editor")
    assert browser.run("document.querySelectorAll('.plot canvas').length") == 1
    browser.run("document.querySelectorAll('input[name=compare]').forEach((box, at) => { box.checked = at < 2; })")
    browser.follow(
        "[...document.querySelectorAll('button')].find((node) => node.textContent === 'Compare two').click()"
    )
    assert "against" in browser.run("document.getElementById('compared').textContent")
    browser = open_page("machines")
    browser.follow("document.querySelector('td a.title').click()")
    assert "machine=" in browser.run("location.search")


def test_a_server_that_is_away_is_said_and_its_return_too(open_page):
    browser = open_page("overview")
    assert browser.run("document.getElementById('offline').hidden")
    browser.offline(True)
    browser.until("!document.getElementById('offline').hidden")
    browser.offline(False)
    browser.until("document.getElementById('offline').hidden")


def test_a_page_that_does_not_exist_leads_back(open_page):
    browser = open_page("/nothing")
    assert "There is nothing here" in browser.run("document.querySelector('h1').textContent")
    assert violations(browser) == []
    browser.follow("[...document.querySelectorAll('main a')][0].click()")
    assert browser.run("location.pathname") == "/"


def test_what_an_app_calls_itself_is_text(browser, place):
    told = place.post("/api/sessions", {"product": EVIL, "version": EVIL, "hostname": EVIL, "state": {EVIL: EVIL}})
    session_id = told["session_id"]
    stack = [f'  File "{EVIL}", line 3, in {EVIL}']
    place.post(f"/api/sessions/{session_id}/events",
               {"name": EVIL, "message": EVIL, "data": {EVIL: EVIL}, "level": "error", "category": EVIL,
                "exception_type": EVIL, "exception_msg": EVIL, "stacktrace": stack})  # fmt: skip
    place.post(f"/api/sessions/{session_id}/metrics", {"name": EVIL, "value": 1, "unit": EVIL})
    for path in ("/", "/sessions", f"/sessions/{session_id}", "/machines", "/releases"):
        browser.go(place.url + path)
        assert browser.run("document.title") != "taken"
        assert browser.run("document.querySelectorAll('img, main script').length") == 0, path
        assert browser.errors == [], path
    browser.go(f"{place.url}/sessions/{session_id}")
    browser.click("#events .row")
    browser.until("document.querySelector('#event-detail h3') !== null")
    assert browser.run("document.querySelector('#event-detail h3').textContent") == EVIL
    assert EVIL in browser.run("document.querySelector('h1').textContent")
    assert violations(browser) == []


@pytest.mark.timeout(120)
def test_an_open_session_goes_on_without_moving_what_one_reads(browser, able, tmp_path):
    """A real app with a daemon: its calls are on the page, and it ends there as it does in truth."""
    box = Box(tmp_path).start_server()
    box.env["DATACAT_BATCH_INTERVAL_SECONDS"] = "5"
    app = box.app(APP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        session_id = app.stdout.readline().strip()
        browser.go(f"{box.url}/sessions")
        browser.until("document.querySelector('#news a, tbody[data-rows] a') !== null", "the new session is told")
        browser.go(f"{box.url}/sessions")
        assert browser.run("document.querySelector('tbody[data-rows] .status').textContent") == "active"
        list_is = browser.run("document.querySelector('tbody[data-rows] a').pathname")
        assert list_is == f"/sessions/{session_id}"
        browser.go(f"{box.url}{list_is}")
        before = browser.run("document.querySelectorAll('.lane').length")
        for word in ("first", "second"):
            app.stdin.write(f"{word}\n")
            app.stdin.flush()
            browser.until(f"document.getElementById('events').textContent.includes('{word}')", f"{word} is on the page")
            browser.until(f"document.querySelector('#moment').textContent.includes('{word}')")
        assert browser.run("document.querySelectorAll('.lane').length") == before
        assert browser.run("window.shifts") < 0.1
        app.stdin.close()
        browser.until("document.querySelector('#headline .status').textContent === 'ended'")
        assert app.wait(20) == 0
        assert browser.errors == []
    finally:
        app.kill()
        app.stdout.close()
        box.close()


def test_a_key_signs_in_and_out_and_a_link_of_another_site_finds_one_signed_in(browser, able, tmp_path):
    key, text = make("reader", "read", (), 0, 1)
    KeyFile(tmp_path).add(key)
    with Place(tmp_path) as place:
        browser.go(f"{place.url}/sessions?status=hung")
        assert browser.run("location.pathname + location.search") == "/sign-in?next=%2Fsessions%3Fstatus%3Dhung"
        assert violations(browser) == []
        browser.type("dcat_wrong_key")
        browser.follow("document.querySelector('.door').requestSubmit()")
        assert "not known" in browser.run("document.querySelector('[role=alert]').textContent")
        assert violations(browser) == []
        browser.errors.clear()
        browser.type(text)
        browser.leaving(lambda: browser.key("Enter"))
        assert browser.run("location.pathname") == "/sessions"
        assert browser.run("location.search") == "?status=hung"
        assert browser.run("document.cookie") == ""
        assert browser.run("fetch('/api/sessions').then((found) => found.status)") == 200
        assert browser.run("fetch('/api/sessions', {method: 'POST'}).then((found) => found.status)") == 401
        # A page of another site: the cookie is strict, and the link works all the same.
        browser.go(f"data:text/html,<a id=x href='{place.url}/releases'>x</a>")
        browser.follow("document.getElementById('x').click()")
        browser.until("location.pathname === '/releases'")
        browser.settled()
        browser.follow("document.querySelector('form[action=\"/sign-out\"] button').click()")
        assert browser.run("location.pathname") == "/sign-in"
        browser.go(f"{place.url}/")
        assert browser.run("location.pathname") == "/sign-in"


def test_a_page_that_is_open_asks_for_the_key_when_it_is_revoked(browser, able, tmp_path):
    key, text = make("reader", "read", (), 0, 1)
    KeyFile(tmp_path).add(key)
    KeyFile(tmp_path).add(make("other", "read", (), 0, 1)[0])
    with Place(tmp_path) as place:
        browser.go(f"{place.url}/sign-in")
        browser.type(text)
        browser.follow("document.querySelector('.door').requestSubmit()")
        KeyFile(tmp_path).remove(key.id)
        browser.until("location.pathname === '/sign-in'", "the page asks for a key")


def test_with_reduced_motion_nothing_moves_and_print_leaves_out_what_is_for_the_screen(open_page, browser):
    browser.look(reduced=True)
    open_page("overview")
    assert browser.run("document.getAnimations().length") == 0
    browser.look(media="print")
    assert browser.run("getComputedStyle(document.querySelector('.top nav')).display") == "none"


def test_the_browser_of_these_tests_is_ended(able):
    browser = Browser()
    process = browser._process
    browser.close()
    assert process.poll() is not None
    assert sys.executable
