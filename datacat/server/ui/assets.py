"""Style sheets, scripts and pictures of the pages: read once, named by their content, kept by browsers for good."""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

from datacat.server.problems import Refusal
from datacat.server.router import Answer, Request, Route

PATH = "/static/"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_TAG_BYTES = 8
_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable", "Cross-Origin-Resource-Policy": "same-origin"}


class Assets:
    """All files of datacat/server/static. Any thread: nothing changes after the start."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        self._addresses: dict[str, str] = {}
        for name, content in _read(files("datacat.server") / "static", ""):
            kind = TYPES.get(name[name.rfind(".") :])
            if kind is not None:
                tag = hashlib.blake2b(content, digest_size=_TAG_BYTES).hexdigest()
                self._files[name] = (content, kind)
                # A new release has a new address, so that no page is shown with the style of another one.
                self._addresses[name] = f"{PATH}{tag}/{name}"

    def address(self, name: str) -> str:
        """Return the address of a file by its name below the folder. Raises: KeyError."""
        return self._addresses[name]

    def routes(self) -> list[Route]:
        """Return the table of routes; nobody needs a key for them, for they are the same everywhere."""
        return [
            Route("GET", PATH + "{tag}/{name}", self._serve, None),
            Route("GET", PATH + "{tag}/vendor/{name}", self._serve_vendor, None),
        ]

    def _serve(self, request: Request) -> Answer:
        return self._answer(request.path["name"])

    def _serve_vendor(self, request: Request) -> Answer:
        return self._answer(f"vendor/{request.path['name']}")

    def _answer(self, name: str) -> Answer:
        if name not in self._files:
            raise Refusal(404, "there is no such file")
        content, kind = self._files[name]
        return Answer(200, content, {"Content-Type": kind, **_HEADERS})


def _read(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for item in folder.iterdir():
        if item.is_dir():
            found += _read(item, f"{prefix}{item.name}/")
        else:
            found.append((prefix + item.name, item.read_bytes()))
    return found
