"""Write what is made for Grafana anew: dashboards, alert rules, and the table of panels in docs/grafana.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from boards import files


def main(argv: list[str]) -> int:
    """Write what differs; with --check only tell it, and return 1 when there is any."""
    found = 0
    for name, text in files.made().items():
        path = files.ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        found += 1
        print(f"{name} {'differs' if '--check' in argv else 'written'}")
        if "--check" not in argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(bool(found) and "--check" in argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
