"""Pictures of every page: a made-up fleet, a real server, a headless Chromium. See scripts/screenshots."""

import io
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser, command  # noqa: E402
from PIL import Image  # noqa: E402
from place import Place  # noqa: E402

from datacat.server.keys import KeyFile, make  # noqa: E402

FOLDER = ROOT / "docs/images"
SIZES = {"wide": (1280, 900), "narrow": (380, 820)}
MAX_HEIGHT = 1700
"""Longer pages are cut: what follows is more of the same rows."""
COLOURS = 160
MAX_BYTES = 3_000_000


def main(wanted):
    if command() is None:
        sys.exit("there is no Chromium on this machine")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        with Place(Path(folder, "fleet")).seeded() as place:
            register(place)
            paths = {**place.pages(), "problem": "/nothing"}
            for name, path in paths.items():
                take(browser, place.url + path, name, wanted)
        closed = Path(folder, "closed")
        KeyFile(closed).add(make("reader", "read", (), 0, 1)[0])
        with Place(closed) as place:
            take(browser, f"{place.url}/sign-in", "sign-in", wanted)
    whole = sum(path.stat().st_size for path in FOLDER.iterdir() if not path.name.startswith("grafana-"))
    print(f"{whole / 1e6:.1f} MB in {FOLDER.relative_to(ROOT)}")
    if whole > MAX_BYTES:
        sys.exit("that is too much")


def register(place):
    """Let some of the machines have a daemon."""
    for row in place.get("/api/query/summary?from=-30d&by=machine,hostname&sort=-last_seen_at&limit=9")["rows"]:
        number = int(row["machine"], 16)
        told = {"hostname": row["hostname"], "machine_id": row["machine"], "pid": 900 + number, "version": "0.1.0"}
        place.post("/api/daemons", {**told, "id": f"d{number}", "spool_bytes": 4096 * number % 70_000})


def take(browser, url, name, wanted):
    for size, (width, height) in SIZES.items():
        for dark in (False, True):
            file = FOLDER / f"{name}-{size}-{'dark' if dark else 'light'}.png"
            if wanted and not any(word in file.name for word in wanted):
                continue
            browser.look(dark=dark, width=width, height=height)
            browser.go(url)
            browser.until("document.querySelectorAll('.htmx-request').length === 0")
            picture = Image.open(io.BytesIO(browser.picture())).convert("RGB")
            picture = picture.crop((0, 0, picture.width, min(picture.height, MAX_HEIGHT)))
            few_colours(picture).save(file, optimize=True)
            print(f"{file.name}  {picture.width} x {picture.height}  {file.stat().st_size / 1000:.0f} kB")


def few_colours(picture):
    """Return the picture in its most frequent colours, which leaves them as they are and a third of the bytes."""
    often = sorted(picture.getcolors(picture.width * picture.height), reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in often for part in colour])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main(sys.argv[1:])
