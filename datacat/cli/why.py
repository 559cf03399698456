"""Why a session is what it is, in one sentence. Pure."""

from typing import Any

from datacat.cli import text
from datacat.wire.records import CRASHED_EVENT


def why(session: dict[str, Any], now_us: int) -> str:
    """Return one sentence from a session object of the API; events, when it has them, tell which exception it was."""
    sentence = _cause(session, now_us)
    detail = session.get("end_detail")
    if detail and detail not in sentence:
        sentence += f" ({text.one_line(str(detail), 300)})"
    return f"{sentence}."


def _cause(session: dict[str, Any], now_us: int) -> str:
    name = text.signal_name(session.get("exit_signal"))
    code = session.get("exit_code")
    silence = text.ago(session.get("last_heartbeat"), now_us)
    ran = text.lasted(session, now_us)
    match (session["status"], session.get("end_reason")):
        case ("active", _):
            return f"It runs, for {ran} now"
        case ("hung", _):
            return f"It hangs: it is there, but its last heartbeat was {silence}"
        case ("suspended", _):
            return "It is suspended: its machine sleeps, it was stopped, or contact is lost"
        case ("ended", "clean"):
            return f"It ended well after {ran}: it said so itself" + (
                "" if code is None else f", with exit code {code}"
            )
        case ("ended", "exit_zero"):
            return f"It ended well after {ran}, with exit code 0"
        case ("ended", "closed"):
            return f"It ended in order after {ran}; its exit code could not be seen"
        case ("ended", "terminated"):
            return f"It was asked to stop{f' with {name}' if name else ''} after {ran}"
        case ("crashed", "exception"):
            return f"It crashed after {ran}: {_exception(session)}"
        case ("crashed", "signal"):
            return f"It crashed after {ran}: {name or 'a signal'} ended it"
        case ("crashed", "exit_code"):
            return f"It failed after {ran} with exit code {'unknown' if code is None else code}"
        case ("crashed", "killed"):
            return f"It was killed with {name or 'SIGKILL'} after {ran}; nothing in it could say goodbye"
        case ("crashed", "oom"):
            return f"The system killed it after {ran}, because memory ran out"
        case ("crashed", "hang"):
            by = f" with {name}" if name else ""
            return f"It hung for {text.span(session.get('hang_seconds') or 0)} and was killed{by} while it hung"
        case ("crashed", _):
            return f"It is gone after {ran}, and nobody could see how"
        case ("abnormal", "power"):
            return f"Its machine lost power or crashed under it after {ran}"
        case ("abnormal", "reboot"):
            return f"Its machine was restarted under it after {ran}"
        case ("abnormal", _):
            return f"Nothing was heard of it any more after {ran}"
        case (status, reason):
            return f"It is {status}" + (f" ({reason})" if reason else "")


def _exception(session: dict[str, Any]) -> str:
    """Return what the newest exception that ended it was, as far as the session's events tell."""
    events = session.get("events") or []
    candidates = [event for event in events if event.get("exception_type")]
    # The verdict's own event knows which exception ended it; without it the last one is the best guess.
    for event in [*(e for e in reversed(candidates) if e.get("name") == CRASHED_EVENT), *reversed(candidates)]:
        said = f"{event['exception_type']}: {event.get('exception_msg') or ''}".rstrip(": ")
        where = f" in {event['source_file']}:{event.get('source_line')}" if event.get("source_file") else ""
        return f"nobody handled {text.one_line(said, 300)}{where}"
    return "nobody handled an exception"
