"""Draw the table of a demo as SVG, for documents."""

import io
import re
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import MONOKAI

_WIDTH = 118
# Rich's own format loads a font from the network; a picture in a document must not.
_WEB_FONTS = re.compile(r"@font-face \{.*?\n    \}", re.DOTALL)


def draw(path: Path, title: str, *parts: RenderableType) -> None:
    """Write parts, as a terminal shows them, to an SVG file. Raises: OSError."""
    console = Console(width=_WIDTH, record=True, file=io.StringIO(), force_terminal=True, highlight=False)
    for part in parts:
        console.print(part)
    svg = _WEB_FONTS.sub("", console.export_svg(title=title, theme=MONOKAI, unique_id="demo"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line.rstrip()}\n" for line in svg.splitlines() if line.strip()), encoding="utf-8")
