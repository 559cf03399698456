"""What the pages cost: each rendered on the server with a large fleet, and in a browser what a reader waits for.

Usage: scripts/bench pages [--sessions N] [--rounds N] [--no-browser] [--json] [--check]
  --check   exit code 1 when a target is missed: 50 ms median for a page, 1 s until the page of a session of 20,000
            events can be used, 6 s from the app's call to the page
Pages go through the whole application, without a socket. In the browser a session can be used when its axis is drawn
and its events can be searched; an update is measured from the call in a real app, through its daemon, to the text on
the page.
"""

import argparse
import gc
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from html import unescape
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bench_query import build
from browser import Browser, command
from place import Place
from system.box import Box
from wsgi import Client

from datacat.server.audit import Audit
from datacat.server.config import Config, Live
from datacat.server.gate import gate
from datacat.server.keys import Ring
from datacat.server.leases import Leases
from datacat.server.own import OwnStream
from datacat.server.pulse import Pulse
from datacat.server.rates import Rates
from datacat.server.service import site
from datacat.server.ui.words import count

PAGE_MS, USABLE_S, LIVE_S = 50.0, 1.0, 6.0
LATER = ("releases: metrics", "crash group: suspects", "hang group: suspects")
"""Parts that the page asks for once it is shown."""
APP = """
import datacat, sys, time
session = datacat.create_session(sys.argv[1], product="live", version="1.0")
for line in sys.stdin:
    session.log_event(line.strip())
"""


def rows(client, query):
    """Return the rows of an answer."""
    answer = client.get(f"/api/query/{query}")
    assert answer.status == 200, answer.body
    return answer.json["rows"]


def biggest(client):
    """Return the group of crashes and the one of hangs with the most sessions."""
    return [rows(client, f"{path}?from=-90d&sort=-sessions&limit=1")[0] for path in ("crashes", "hangs/groups")]


def check_groups(client, sessions):
    """Raise AssertionError unless the pages of the biggest groups show them: many sessions, and a stack."""
    for kind, group in zip(("crashes", "hangs"), biggest(client), strict=True):
        assert group["sessions"] >= sessions // 500, group
        for path, texts in (
            (f"/{kind}", [group["title"]]),
            (f"/{kind}/{group['signature']}", [group["title"], f">{count(group['sessions'])}</a>", 'class="own"']),
        ):
            page = client.get(path)
            assert page.status == 200, (path, page.status)
            missing = [text for text in texts if text not in unescape(page.body.decode())]
            assert not missing, (path, missing)


def pages_of(client):
    """Return the addresses of the pages by name, and of their parts that are asked for again and again."""
    crash, hang = biggest(client)
    session = f"/sessions/{crash['example_session']}"
    first, second = (row["version"] for row in rows(client, "summary?from=-30d&by=version&product=editor&limit=2"))
    live = re.search(r'hx-get="(/sessions/live[^"]+)"', client.get("/sessions").body.decode())[1].replace("&amp;", "&")
    return {
        "sessions: live": live, "overview": "/", "overview: now": "/overview/now", "sessions": "/sessions",
        "sessions of a version": f"/sessions?product=editor&version={quote(first)}&status=crashed",
        "session": session, "session: axis": f"{session}/timeline", "session: moment": f"{session}/moment",
        "crashes": "/crashes", "crash group": f"/crashes/{crash['signature']}", "hangs": "/hangs",
        "hang group": f"/hangs/{hang['signature']}", "hang group: suspects": f"/groups/{hang['signature']}/suspects",
        "crash group: suspects": f"/groups/{crash['signature']}/suspects",
        "releases": f"/releases?product=editor&compare={quote(first)}&compare={quote(second)}",
        "releases: metrics": f"/releases/metrics?product=editor&compare={quote(first)}&compare={quote(second)}",
        "machines": "/machines", "service": "/service", "sign-in": "/sign-in",
    }  # fmt: skip


def rendered(sessions, rounds):
    """Return for each page: median CPU time in ms, the first one's time, and its bytes."""
    with tempfile.TemporaryDirectory(prefix="datacat-bench-") as folder:
        began = time.perf_counter()
        store, _ = build(folder, sessions, 2, 2_000_000)
        print(f"made {sessions} sessions in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        own, live = OwnStream(store, "bench"), Live(Config())
        doors = gate(live, Ring(None), Rates(), own.clock_us)
        pulse = Pulse(store, own.clock_us, lambda: None, lambda: 0)
        client = Client(site(live, own, Leases(), lambda: False, doors, Audit(None, own.clock_us), pulse))
        gc.collect()
        found = {}
        for name, path in pages_of(client).items():
            taken = []
            for _ in range(rounds + 1):
                began = time.process_time()  # the machine may be busy with something else
                answer = client.get(path)
                taken.append((time.process_time() - began) * 1000)
                assert answer.status in (200, 303), (path, answer.body)
            found[name] = (statistics.median(taken[1:]), taken[0], len(answer.body))
        check_groups(client, sessions)
        store.close()
    return found


def usable(rounds):
    """Return the median time in s until the session of 20,000 events can be used."""
    ready = "document.querySelector('#axis[data-ready]') !== null && document.querySelector('#events .row') !== null"
    search = (
        "const box = document.getElementById('events-search'); box.value = 'plugin'; "
        "box.dispatchEvent(new Event('input')); document.getElementById('events-count').textContent"
    )
    taken = []
    with tempfile.TemporaryDirectory() as folder, Browser() as browser, Place(Path(folder)).seeded() as place:
        for _ in range(rounds):
            browser.go("about:blank")
            began = time.perf_counter()
            browser.call("Page.navigate", url=f"{place.url}/sessions/{place.fleet.named['long']}")
            browser.until(ready)
            told = browser.run(search)
            taken.append(time.perf_counter() - began)
            assert " of 20001" in told, told
    return statistics.median(taken)


def lively(rounds):
    """Return the times in s from the app's call to its text on the page of its session, in order."""
    taken = []
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        box = Box(Path(folder)).start_server()
        box.env["DATACAT_BATCH_INTERVAL_SECONDS"] = "5"  # as it is when nobody sets it
        app = box.app(APP, stdin=subprocess.PIPE, text=True)
        try:
            browser.go(f"{box.url}/sessions")
            browser.until("document.querySelector('#news a, tbody[data-rows] a') !== null")
            browser.go(box.url + "/sessions/" + box.heads(product="live")[0]["id"])
            for number in range(rounds):
                browser._pause(0.37 * number)  # at another place between two batches each time
                began = time.perf_counter()
                app.stdin.write(f"call-{number}\n")
                app.stdin.flush()
                browser.until(f"document.getElementById('events').textContent.includes('call-{number}')")
                taken.append(time.perf_counter() - began)
        finally:
            app.stdin.close()
            app.wait(20)
            box.close()
    return sorted(taken)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    told = {"sessions": given.sessions}
    missed = []
    found = rendered(given.sessions, given.rounds)
    told["pages"] = {name: {"median_ms": round(ms, 1), "first_ms": round(first, 1), "bytes": size}
                     for name, (ms, first, size) in found.items()}  # fmt: skip
    missed += [f"{name}: {ms:.0f} ms" for name, (ms, _, _) in found.items() if ms > PAGE_MS and name not in LATER]
    if not given.no_browser and command() is not None:
        told["usable_s"], live = round(usable(7), 3), lively(12)
        told["live_s"] = {"median": round(statistics.median(live), 2), "longest": round(live[-1], 2)}
        missed += [f"a session of 20,000 events: {told['usable_s']} s"] if told["usable_s"] > USABLE_S else []
        missed += [f"an update: {live[-1]:.2f} s"] if live[-1] > LIVE_S else []
    if given.json:
        print(json.dumps(told | {"missed": missed}))
    else:
        print(f"{'page':24}{'median ms':>10}{'first ms':>10}{'kB':>8}   (CPU time, {given.sessions} sessions)")
        for name, (ms, first, size) in found.items():
            over = "   over" if ms > PAGE_MS and name not in LATER else ""
            print(f"{name:24}{ms:10.1f}{first:10.1f}{size / 1000:8.0f}{over}")
        if "usable_s" in told:
            print(f"a session of 20,000 events can be used after {told['usable_s']} s (median)")
            print("from the app's call to the page: "
                  f"{told['live_s']['median']} s (median), {told['live_s']['longest']} s (longest)")  # fmt: skip
    sys.exit(1 if given.check and missed else 0)


if __name__ == "__main__":
    main()
