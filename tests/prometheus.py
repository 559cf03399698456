"""Prometheus and promtool of Debian: from this machine, or from the folder in which scripts/test unpacks them."""

import shutil
from pathlib import Path

import absent

UNPACKED = Path(__file__).parents[1] / ".prometheus" / "usr" / "bin"


def tool(name):
    """Return the path of prometheus or promtool, or skip."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    if found is None:
        absent.skip(f"no {name} on this machine, and scripts/test could not fetch Debian's")
    return found
