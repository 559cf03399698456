"""The table of hangs in docs/platforms.md: what the main thread does, what datacat says, and how soon; all measured."""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from system.hangs import HANGS, TIMEOUT_S, Hang, Impossible, hang  # noqa: E402  the tests' own apps

PAGE = ROOT / "docs" / "platforms.md"
BEGIN, END = "<!-- hangs -->", "<!-- /hangs -->"


def one(way: Hang, mode: str) -> tuple[str, str, float]:
    """Let one app hang; return what is said, who wrote the stacks, and the time beyond the timeout in seconds."""
    with tempfile.TemporaryDirectory(prefix="datacat-hang-", ignore_cleanup_errors=True) as folder:
        seen = hang(way, Path(folder), mode)
    if seen.event is None:
        return f"suspended, {seen.reason}", "", 0.0
    by = filter(None, (sample.get("stacks_by") for sample in seen.event.data["samples"]))
    return seen.event.data["verdict"], ", ".join(dict.fromkeys(by)), seen.after_s - TIMEOUT_S


def row(way: Hang, rounds: int, late_ms: list[float]) -> str:
    """Return one line of the table."""
    cells = []
    for mode in ("loop", "own", "unasked"):
        try:
            seen = [one(way, mode) for _ in range(rounds)]
        except Impossible as reason:
            cells.append(f"not possible on this machine ({reason})")
            continue
        said = statistics.multimode(words for words, _, _ in seen)
        by = statistics.multimode(by for _, by, _ in seen)[0]
        stacks = "" if way.hold else f" (stacks: {by})" if by else " (no stacks)"
        cells.append(" or ".join(said) + stacks)
        if not way.hold:
            late_ms += [1000 * late for _, _, late in seen]
    return f"| {way.cause} | {' | '.join(cells)} |"


def main() -> None:
    """Measure, and put the table into the page."""
    parser = argparse.ArgumentParser(prog="scripts/hangs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each hang is hung")
    rounds = parser.parse_args().rounds
    late_ms: list[float] = []
    rows = []
    for way in HANGS:
        rows.append(row(way, rounds, late_ms))
        sys.stderr.write(f"{rows[-1]}\n")
    kernel = os.uname().release
    summary = (
        f"{len(HANGS)} ways, {rounds} times each, three kinds of apps, with a timeout of {TIMEOUT_S:g} s, on Linux "
        f"{kernel.split('-')[0]} with {os.cpu_count()} cores: the event was on disk "
        f"{statistics.median(late_ms):.0f} ms (median; longest {max(late_ms):.0f} ms) after the timeout had passed."
    )
    kinds = "app with a heartbeat thread | app that beats itself and is watched | app that only beats"
    head = [f"| what the main thread does | {kinds} |", "|---|---|---|---|"]
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join([*head, *rows])
    PAGE.write_text(f"{before}{BEGIN}\n\n{summary}\n\n{table}\n\n{END}{after}", "utf-8")
    sys.stderr.write(f"{summary}\n")


if __name__ == "__main__":
    main()
