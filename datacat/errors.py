"""The one tree of exceptions; imports nothing, so that every room may use it.

DatacatError            hint says what to do; permanent says that trying again cannot help
├── WireError           a record, patch or line that does not obey the language (pointer, detail)
├── ConfigError         a setting that is unknown or malformed (name, value, allowed form)
├── HostError           the operating system said no
│   ├── ProcessGone     the process is not there any more, or its pid belongs to another one
│   ├── NotPermitted    the operating system refuses this user
│   └── Busy            somebody else holds the lock (holder)
├── JournalError        a session folder or segment cannot be read or written
├── UplinkError         the server did not take a request (status, retry_after_s, body)
└── StoreError          the store did not do it
    ├── NotFound        no such session
    ├── Deleted         the session was deleted or expired; final
    ├── Mismatch        a batch that does not continue its stream (acked, reason)
    └── Corrupt         bytes on disk that are not what was written (path, offset)
"""


class DatacatError(Exception):
    """Root of the tree: a sentence for a person, a hint what to do, and whether a retry can help."""

    def __init__(self, message: str, *, hint: str = "", permanent: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.permanent = permanent

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class WireError(DatacatError):
    """A record, patch or request that does not obey the language; sending it again cannot help."""

    def __init__(self, message: str, *, pointer: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint, permanent=True)
        self.pointer = pointer


class ConfigError(DatacatError):
    """A setting that is unknown or malformed: its name, its value and the form that is allowed."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"unexpected value {name}={value}", hint=f"use {allowed}", permanent=True)
        self.name = name
        self.value = value
        self.allowed = allowed


class HostError(DatacatError):
    """The operating system refused or failed."""


class ProcessGone(HostError):
    """The process has ended, or its pid belongs to a different process now."""


class NotPermitted(HostError):
    """The operating system refuses this to the current user."""


class Busy(HostError):
    """A lock is held by somebody else; holder is what is known of them (a pid) or empty."""

    def __init__(self, message: str, *, holder: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.holder = holder


class JournalError(DatacatError):
    """A session's folder or segment cannot be read or written."""


class UplinkError(DatacatError):
    """The server did not take a request.

    status is the HTTP status (0: no answer), retry_after_s what the server asked for (None: nothing),
    body the decoded problem document (RFC 9457) or an empty dict.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        retry_after_s: float | None = None,
        body: dict[str, object] | None = None,
        hint: str = "",
    ) -> None:
        # RFC 9110: 4xx says that the same request fails again, except when it asks to wait.
        permanent = 400 <= status < 500 and status not in (408, 425, 429)
        super().__init__(message, hint=hint, permanent=permanent)
        self.status = status
        self.retry_after_s = retry_after_s
        self.body = body or {}


class StoreError(DatacatError):
    """The store could not do what it was asked."""


class NotFound(StoreError):
    """There is no such session."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session {session_id}", permanent=True)
        self.session_id = session_id


class Deleted(StoreError):
    """The session was deleted or has expired; nothing more is taken for it."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id} was deleted", permanent=True)
        self.session_id = session_id


class Mismatch(StoreError):
    """A batch does not continue its stream: acked is where the stream ends, reason is offset or diverged."""

    def __init__(self, message: str, *, acked: int, reason: str) -> None:
        super().__init__(message, hint=f"cut the batch again from {acked}", permanent=True)
        self.acked = acked
        self.reason = reason


class Corrupt(StoreError):
    """Bytes on disk are not what was written: the file and the offset in it."""

    def __init__(self, message: str, *, path: str, offset: int, hint: str = "") -> None:
        super().__init__(f"{message} ({path} at byte {offset})", hint=hint, permanent=True)
        self.path = path
        self.offset = offset
