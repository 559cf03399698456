"""How many calls returned: a shared page that a program counts in, so that the count survives its SIGKILL.

36 bytes of the session's id, then two unsigned 64-bit numbers: events written, and a mark that the program sets when it
has reached the point that the demo waits for.
"""

import mmap
import struct
from pathlib import Path
from typing import Self

_ID = struct.Struct("36s")
_NUMBERS = struct.Struct("<QQ")
_SIZE = mmap.PAGESIZE


class Ledger:
    """The page of one program; the program writes, the demo reads. One thread each."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_SIZE)
            self._page = mmap.mmap(file.fileno(), _SIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._page.close()

    @property
    def session_id(self) -> str:
        """The id of the program's session; empty until it has one."""
        return bytes(_ID.unpack_from(self._page)[0]).rstrip(b"\0").decode("ascii")

    @session_id.setter
    def session_id(self, session_id: str) -> None:
        _ID.pack_into(self._page, 0, session_id.encode("ascii"))

    @property
    def written(self) -> int:
        """How many calls of log_event have returned."""
        return int(_NUMBERS.unpack_from(self._page, _ID.size)[0])

    @property
    def marked(self) -> bool:
        """Whether the program is where the demo wants it."""
        return bool(_NUMBERS.unpack_from(self._page, _ID.size)[1])

    def note(self, written: int, *, marked: bool = False) -> None:
        """Say that so many calls have returned."""
        # Not pack_into: it writes zeros first, and a program that is killed just then would have written nothing.
        self._page[_ID.size : _ID.size + _NUMBERS.size] = _NUMBERS.pack(written, marked)
