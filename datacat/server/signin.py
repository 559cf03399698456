"""Who is signed in: a cookie with a random text in the browser, and here which key it stands for and since when.

Only the SHA-256 of a cookie's text is kept, as of keys. The file lets people stay signed in when the server restarts.
Rules: OWASP, Session Management Cheat Sheet; cookie attributes and the prefix __Host-: RFC 6265bis.
"""

import hashlib
import hmac
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

import msgspec

from datacat.server.keys import hand_over
from datacat.store import durable

_log = logging.getLogger(__name__)

FILE = "signins.json"
IDLE_S = 12 * 3600
"""A sign-in that was not used for so long is over; a page that is left open uses it."""
LIFE_S = 30 * 24 * 3600
"""No sign-in lasts longer."""
MAX_SIGN_INS = 5000
_US = 1_000_000
_KEEP_US = 600 * _US
"""When a sign-in was last used is written to the file at most so often."""
_NAME = "datacat"
_SECURE_NAME = "__Host-datacat"
_TOKEN_BYTES = 32


class SignIn(msgspec.Struct):
    """One sign-in: the id of its key, when it began and was last used (Unix us)."""

    key_id: str
    since: int
    used: int


class _Document(msgspec.Struct):
    version: int = 1
    sign_ins: dict[str, SignIn] = {}


class SignIns:
    """All sign-ins. Any thread. folder None: they are in memory alone."""

    def __init__(self, folder: Path | None, clock_us: Callable[[], int]) -> None:
        self._path = folder / FILE if folder else None
        self._clock_us = clock_us
        self._lock = threading.Lock()
        self._known = self._read()
        self._written_us = 0

    def begin(self, key_id: str, before: str = "") -> str:
        """Return the text of a new cookie; the sign-in of the cookie that the browser had before is over."""
        text, now_us = secrets.token_urlsafe(_TOKEN_BYTES), self._clock_us()
        with self._lock:
            self._known.pop(_hash(before), None)
            self._forget(now_us)
            self._known[_hash(text)] = SignIn(key_id, now_us, now_us)
            self._write(now_us)
        return text

    def key_id(self, text: str) -> str:
        """Return the id of the key that a cookie stands for, empty when it stands for none any more."""
        now_us = self._clock_us()
        with self._lock:
            found = self._known.get(_hash(text))
            if found is None or _is_over(found, now_us):
                return ""
            found.used = max(found.used, now_us)
            if now_us - self._written_us > _KEEP_US:
                self._write(now_us)
            return found.key_id

    def end(self, text: str) -> None:
        """Sign out."""
        with self._lock:
            if self._known.pop(_hash(text), None) is not None:
                self._write(self._clock_us())

    def _forget(self, now_us: int) -> None:
        self._known = {name: one for name, one in self._known.items() if not _is_over(one, now_us)}
        while len(self._known) >= MAX_SIGN_INS:
            self._known.pop(min(self._known, key=lambda name: self._known[name].used))

    def _read(self) -> dict[str, SignIn]:
        if self._path is None:
            return {}
        try:
            document = msgspec.json.decode(self._path.read_bytes(), type=_Document)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.warning("who is signed in cannot be read from %s, so everybody signs in again: %s", self._path, error)
            return {}
        return document.sign_ins if document.version == 1 else {}

    def _write(self, now_us: int) -> None:
        self._written_us = now_us
        if self._path is None:
            return
        try:
            durable.create(self._path, msgspec.json.encode(_Document(1, self._known)) + b"\n")
            hand_over(self._path)
        except OSError as error:
            _log.error("who is signed in cannot be kept in %s: %s", self._path, error.strerror)


def cookie_of(environ: Mapping[str, Any]) -> str:
    """Return the text of the cookie that came with a request, empty without one."""
    try:
        jar: SimpleCookie = SimpleCookie(str(environ.get("HTTP_COOKIE", "")))
    except CookieError:
        return ""
    found = jar.get(_SECURE_NAME) or jar.get(_NAME)
    return found.value if found else ""


def set_cookie(text: str, *, secure: bool) -> str:
    """Return the header Set-Cookie that keeps a text in the browser; an empty one takes it away."""
    name, more = (_SECURE_NAME, "; Secure") if secure else (_NAME, "")
    return f"{name}={text}; Path=/; Max-Age={LIFE_S if text else 0}; HttpOnly; SameSite=Strict{more}"


def token_of(text: str) -> str:
    """Return what a form of our own pages sends along: who has not seen the page cannot know it."""
    return hmac.new(text.encode("utf-8", "surrogateescape"), b"datacat form", hashlib.sha256).hexdigest()


def is_token(told: str, text: str) -> bool:
    """Return whether a form came from our own page for this cookie."""
    return bool(text) and hmac.compare_digest(told.encode("utf-8", "replace"), token_of(text).encode())


def local_path(wanted: str) -> str:
    """Return the path of this server that somebody wanted to see; / for everything else (an open redirect)."""
    plain = wanted.isascii() and wanted.isprintable() and len(wanted) <= 4000
    if not plain or not wanted.startswith("/") or wanted[1:2] in ("/", "\\") or wanted.startswith("/sign-"):
        return "/"
    return wanted


def _is_over(one: SignIn, now_us: int) -> bool:
    return now_us - one.used > IDLE_S * _US or now_us - one.since > LIFE_S * _US


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
