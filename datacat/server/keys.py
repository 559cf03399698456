"""Keys: how they are made, the file that keeps them hashed, and the ring that knows them while the server runs.

A key is `dcat_ID_SECRET`; the secret has 256 random bits. Its SHA-256 is kept: a slow hash protects what people choose,
because that can be guessed; 256 random bits cannot, and a slow hash would let anybody who sends wrong keys keep the
processor busy. ID is no secret: it finds the one hash that is compared, in constant time.

The file is replaced as a whole (fsync, rename), so that a command may change it while a server reads it.
"""

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec

from datacat import host
from datacat.errors import Busy, HostError, WireError
from datacat.store import durable
from datacat.wire import records
from datacat.wire.times import rfc3339

_log = logging.getLogger(__name__)

Role: TypeAlias = Literal["ingest", "read", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

FILE = "keys.json"
LOCK_FILE = "keys.lock"
VERSION = 1
MAX_NAME_CHARS = 64
MAX_KEY_CHARS = 128
"""A longer text is no key; nothing is computed about it."""
LOOK_S = 1.0
"""How often the file is looked at while requests come."""
_LOCK_S = 5.0
_PREFIX = "dcat"
_ID_CHARS = "0123456789abcdefghjkmnpqrstvwxyz"
_ID_LENGTH = 8
_SECRET_BYTES = 32
_NO_HASH = "0" * 64


class Key(msgspec.Struct, frozen=True):
    """What is kept of a key. Times are Unix us, expires_at 0: never. products (), as for every admin key: all."""

    id: str
    name: str
    role: Role
    hash: str
    created_at: int
    expires_at: int = 0
    products: tuple[str, ...] = ()

    def has_expired(self, now_us: int) -> bool:
        """Return whether its time is over."""
        return 0 < self.expires_at <= now_us


class _Document(msgspec.Struct):
    version: int
    keys: list[Key]


def make(name: str, role: str, products: Sequence[str], expires_at: int, now_us: int) -> tuple[Key, str]:
    """Return a new key and its text, which is kept nowhere. Raises: WireError with the field that is wrong."""
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise WireError(f"name is no text of 1 to {MAX_NAME_CHARS} characters", pointer="/name")
    if role not in ROLES:
        raise WireError(f"role is none of {', '.join(ROLES)}", pointer="/role")
    if role == "admin" and products:
        raise WireError("an admin key is for every product", pointer="/products")
    if not all(0 < len(product) <= records.MAX_NAME_CHARS for product in products):
        raise WireError(f"products are names of 1 to {records.MAX_NAME_CHARS} characters", pointer="/products")
    if expires_at and expires_at <= now_us:
        raise WireError("expires_at is over already", pointer="/expires_at")
    key_id = "".join(secrets.choice(_ID_CHARS) for _ in range(_ID_LENGTH))
    text = f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return Key(key_id, name, role, _hash(text), now_us, expires_at, tuple(dict.fromkeys(products))), text


def public(key: Key, now_us: int) -> dict[str, object]:
    """Return what may be told of a key."""
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "products": list(key.products),
        "created_at": rfc3339(key.created_at),
        "expires_at": rfc3339(key.expires_at) if key.expires_at else None,
        "expired": key.has_expired(now_us),
    }


class KeyFile:
    """The file of keys in a data folder. Any thread and any process; changes are ordered by a lock file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = folder / LOCK_FILE

    def read(self) -> list[Key]:
        """Return the keys, oldest first; none when there is no file. Raises: HostError."""
        try:
            data = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise HostError(
                f"cannot read the keys in {self.path}: {error.strerror}",
                hint="check who owns the file and its folder",
                permanent=host.needs_a_person(error),
            ) from error
        try:
            document = msgspec.json.decode(data, type=_Document)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise HostError(
                f"the keys in {self.path} cannot be read: {error}",
                hint="restore the file from a backup, or remove it and make new keys",
                permanent=True,
            ) from error
        if document.version != VERSION:
            raise HostError(
                f"the keys in {self.path} are of version {document.version}, which this datacat does not know",
                hint="use the datacat that wrote them",
                permanent=True,
            )
        return document.keys

    def add(self, key: Key) -> None:
        """Keep one more key. Raises: WireError when its name is taken, HostError."""
        with self._changing() as known:
            if any(one.name == key.name for one in known):
                raise WireError(f"there is a key named {key.name!r} already", pointer="/name", hint="revoke it first")
            self._write([*known, key])

    def remove(self, which: str) -> Key | None:
        """Remove the key with this id or name and return it; None when there is none. Raises: HostError."""
        with self._changing() as known:
            found = next((one for one in known if one.id == which), None)
            found = found or next((one for one in known if one.name == which), None)
            if found is not None:
                self._write([one for one in known if one is not found])
        return found

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        try:
            durable.make_dir(self.path.parent)
        except OSError as error:
            raise HostError(
                f"cannot make the folder {self.path.parent}: {error.strerror}", permanent=host.needs_a_person(error)
            ) from error
        deadline, pause = time.monotonic() + _LOCK_S, threading.Event()
        while True:
            try:
                held = host.lock(self._lock)
                break
            except Busy:
                if time.monotonic() > deadline:
                    raise
                pause.wait(0.02)
        with held:
            hand_over(self._lock)
            yield self.read()

    def _write(self, keys: list[Key]) -> None:
        try:
            durable.create(self.path, msgspec.json.format(msgspec.json.encode(_Document(VERSION, keys))) + b"\n")
        except OSError as error:
            raise HostError(
                f"cannot write the keys to {self.path}: {error.strerror}",
                hint="check who owns the folder and whether there is space",
                permanent=host.needs_a_person(error),
            ) from error
        hand_over(self.path)


def hand_over(path: Path) -> None:
    """Give a file that root wrote to the owner of its folder: the server does not run as root."""
    if sys.platform == "win32":
        return
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


class Ring:
    """The keys that a running server knows. Any thread.

    The file is looked at when a request comes, at most every LOOK_S; one that cannot be read changes nothing and is
    logged once. file None: a server without a data folder, which has no keys.
    """

    def __init__(self, file: KeyFile | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises: HostError when the file cannot be read."""
        self.file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._next_look = clock() + LOOK_S
        self._stamp = _stamp(file)
        self._complaint = ""
        self._keys = _by_id(file)

    def __bool__(self) -> bool:
        """Whether there are keys, also expired ones: what was closed once does not open by itself."""
        self._look()
        return bool(self._keys)

    @property
    def keys(self) -> list[Key]:
        """All keys, oldest first."""
        self._look()
        return list(self._keys.values())

    def find(self, text: str) -> Key | None:
        """Return the key with this text, also an expired one; as much work for a wrong one as for a right one."""
        self._look()
        prefix, _, rest = text[:MAX_KEY_CHARS].partition("_")
        key = self._keys.get(rest.partition("_")[0]) if prefix == _PREFIX else None
        same = hmac.compare_digest(_hash(text[: MAX_KEY_CHARS + 1]), key.hash if key else _NO_HASH)
        return key if same else None

    def get(self, key_id: str) -> Key | None:
        """Return the key with this id, also an expired one."""
        self._look()
        return self._keys.get(key_id)

    def reload(self) -> None:
        """Look at the file now."""
        with self._lock:
            self._read()

    def _look(self) -> None:
        # One thread looks; the others go on with what is known.
        if self._clock() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._read()
            finally:
                self._lock.release()

    def _read(self) -> None:
        self._next_look = self._clock() + LOOK_S
        stamp = _stamp(self.file)
        if stamp == self._stamp:
            return
        try:
            self._keys = _by_id(self.file)
        except HostError as error:
            if str(error) != self._complaint:
                _log.error("the keys stay as they are: %s", error)
                self._complaint = str(error)
            return
        self._stamp, self._complaint = stamp, ""
        _log.info("the keys were read again; there are %d", len(self._keys))


def _by_id(file: KeyFile | None) -> dict[str, Key]:
    return {key.id: key for key in file.read()} if file else {}


def _stamp(file: KeyFile | None) -> object:
    """Return what changes with the file: a replaced one is another inode."""
    if file is None:
        return None
    try:
        found = file.path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
