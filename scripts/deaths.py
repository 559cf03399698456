"""The table of deaths in docs/platforms.md: cause, what datacat says, median time to the verdict; all measured."""

import argparse
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from system.deaths import DEATHS, Death, Seen, die  # noqa: E402  the tests' own apps
from system.test_kills import memory_cgroup  # noqa: E402

PAGE = ROOT / "docs" / "platforms.md"
BEGIN, END = "<!-- deaths -->", "<!-- /deaths -->"


def one(death: Death, *, older_kernel: bool) -> Seen | None:
    """Let one app die; None where this machine cannot do it."""
    with tempfile.TemporaryDirectory(prefix="datacat-death-", ignore_cleanup_errors=True) as folder:
        if death.way != "cgroup":
            return die(death, Path(folder), older_kernel=older_kernel)
        with memory_cgroup(150 << 20) as members:
            return die(death, Path(folder), cgroup=members) if members is not None else None


def said(seen: Seen) -> str:
    """Return status, reason and detail as one cell."""
    verdict = seen.verdict
    detail = re.sub(r"\bfor \d+ s\b", "for N s", verdict.detail or "")
    words = f"`{verdict.status}`, `{verdict.reason}`"
    return f"{words}: {detail}" if detail else words


def row(death: Death, rounds: int, times_ms: list[float]) -> str:
    """Return one line of the table; times of a verdict that needs no other daemon are added to times_ms."""
    seen = [one(death, older_kernel=False) for _ in range(rounds)]
    found = [each for each in seen if each is not None]
    if not found:
        return f"| {death.cause} | not possible on this machine | | |"
    words = {said(each) for each in found}
    if len(words) > 1:
        sys.exit(f"{death.cause}: not the same each time: {words}")
    taken = [each.after_s * 1000 for each in found]
    if death.way not in ("both", "power", "reboot"):
        times_ms += taken
    older = one(death, older_kernel=True) if death.older is not None and death.way in ("app", "early") else None
    cell = f"`{older.verdict.status}`, `{older.verdict.reason}`" if older is not None else "—"
    return f"| {death.cause} | {words.pop()} | {statistics.median(taken):.1f} ms | {cell} |"


def main() -> None:
    """Measure, and put the table into the page."""
    parser = argparse.ArgumentParser(prog="scripts/deaths", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each death is died")
    rounds = parser.parse_args().rounds
    times_ms: list[float] = []
    rows = []
    for death in DEATHS:
        rows.append(row(death, rounds, times_ms))
        sys.stderr.write(f"{rows[-1]}\n")
    kernel = os.uname().release
    summary = (
        f"{len(DEATHS)} ways, {rounds} times each, on Linux {kernel.split('-')[0]} with {os.cpu_count()} cores: "
        f"median {statistics.median(times_ms):.1f} ms, longest {max(times_ms):.0f} ms "
        "from the death to the verdict on disk."
    )
    table = "\n".join(
        ["| cause | what datacat says | median time | without the kernel's help |", "|---|---|---|---|", *rows]
    )
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{summary}\n\n{table}\n\n{END}{after}", "utf-8")
    sys.stderr.write(f"{summary}\n")


if __name__ == "__main__":
    main()
