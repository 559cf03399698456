"""Pictures of what the dashboards answer, after Grafana's own data layer, drawn by us. See scripts/grafana_pictures."""

import io
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

from browser import Browser, command  # noqa: E402
from drawing.page import WIDTH, page  # noqa: E402
from grafana.harness import Chosen, dashboards, range_of, seeded, serving  # noqa: E402
from grafana.shown import lacks, shown  # noqa: E402
from PIL import Image  # noqa: E402
from screenshots import few_colours  # noqa: E402

FOLDER = ROOT / "docs/images"
SESSIONS = 600
LONG = f"01890a5d-ac96-774b-bcce-{0x1000 + SESSIONS:012x}"
"""The session of the fleet that logged the most."""
WEEK = 7 * 24
HOURS = {"datacat-fleet": WEEK, "datacat-stability": WEEK, "datacat-metrics": WEEK, "datacat-sessions": 6}
MAX_BYTES = 1_000_000


def main(wanted):
    if missing := lacks() or ("" if command() else "there is no Chromium on this machine"):
        sys.exit(missing)
    with serving(seeded(SESSIONS, 600)) as place, Browser() as browser, tempfile.TemporaryDirectory() as folder:
        browser.look(width=WIDTH, height=900)
        for uid, board in dashboards().items():
            file = FOLDER / f"{uid.replace('datacat-', 'grafana-')}.png"
            if wanted and not any(word in file.name for word in wanted):
                continue
            chosen = Chosen(board, range_of(board, HOURS.get(uid, 0)), place, {"session": LONG})
            html = Path(folder, "page.html")
            html.write_text(page(board, words(chosen), chosen.span, shown(chosen)), encoding="utf-8")
            browser.go(html.as_uri())
            picture = Image.open(io.BytesIO(browser.picture())).convert("RGB")
            few_colours(picture).save(file, optimize=True)
            print(f"{file.name}  {picture.width} x {picture.height}  {file.stat().st_size / 1000:.0f} kB")
    whole = sum(path.stat().st_size for path in FOLDER.glob("grafana-*.png"))
    print(f"{whole / 1e6:.2f} MB")
    if whole > MAX_BYTES:
        sys.exit("that is too much")


def words(chosen):
    """Return what stands in the variables, by their labels."""
    told = {}
    for variable in chosen.board["templating"]["list"]:
        if variable["type"] != "datasource":
            value = chosen.values[variable["name"]]
            told[variable["label"]] = "All" if value == "*" else value if isinstance(value, str) else ", ".join(value)
    return told


if __name__ == "__main__":
    main(sys.argv[1:])
