"""What the demo found: one row for each program, and what is not as it must be. Pure."""

from typing import Any, NamedTuple

from datacat.cli import screen, text
from datacat.cli.demo.programs import GROUP, Program
from datacat.cli.screen import Cell, Column

COLUMNS = (
    Column("PRODUCT"),
    Column("STATUS"),
    Column("REASON"),
    Column("EXIT"),
    Column("EVENTS", right=True),
    Column("THE LAST THING IT DID", wraps=True),
)


class Outcome(NamedTuple):
    """A program, its whole session as the server has it (None: it has none), and how many calls of it returned."""

    program: Program
    session: dict[str, Any] | None
    written: int


def own_events(session: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events that the program wrote itself: not those of datacat's hooks and daemon."""
    return [event for event in session.get("events") or () if event.get("group") == GROUP]


def written_of(outcome: Outcome) -> int:
    """Return how many events were written.

    The program counts after each call; when it is killed between a call and its count, the journal has one more.
    """
    received = len(own_events(outcome.session)) if outcome.session else 0
    return received if received == outcome.written + 1 else outcome.written


def problems(outcome: Outcome) -> list[str]:
    """Return what is not as it must be, one sentence each; nothing when all is well."""
    program, session, _ = outcome
    if session is None:
        return [f"{program.product}: the server has no session of it"]
    found = []
    numbers = [event["data"]["n"] for event in own_events(session)]
    written = written_of(outcome)
    if numbers != list(range(written)):
        missing = len(set(range(written)) - set(numbers))
        twice = len(numbers) - len(set(numbers))
        found.append(f"{missing} of {written} events are missing, {twice} are there twice, or their order is wrong")
    if (session["status"], session["end_reason"]) != (program.status, program.reason):
        found.append(
            f"it is {session['status']} ({session['end_reason']}) and should be {program.status} ({program.reason})"
        )
    if bool(session["hang_count"]) != program.hangs:
        found.append(f"it was found hung {session['hang_count']} times")
    return [f"{program.product}: {line}" for line in found]


def row(outcome: Outcome, *, narrow: bool = False) -> screen.Row:
    """Return the row of the final table; narrow: without the version."""
    session = outcome.session
    if session is None:
        return (Cell(outcome.program.product, "bold"), Cell("-", "red"), "-", "-", "-", "-")
    written = written_of(outcome)
    received = len(own_events(session))
    complete = received == written
    return (
        Cell(session["product"] if narrow else f"{session['product']} {session['version']}", "bold"),
        Cell(session["status"], "green" if session["status"] == "ended" else text.STATUS_STYLES[session["status"]]),
        str(session["end_reason"]),
        text.exit_of(session),
        Cell(f"{received:,} of {written:,}", "green" if complete else "bold red"),
        last_thing(session),
    )


def last_thing(session: dict[str, Any]) -> str:
    """Return the last event that the program wrote, and the exception that ended it."""
    own = own_events(session)
    if not own:
        return "-"
    data = {name: value for name, value in own[-1]["data"].items() if name != "n"}
    said = " ".join([own[-1]["name"], *(f"{name}={text.compact(value)}" for name, value in data.items())])
    if session["end_reason"] == "exception":
        raised = [event for event in session["events"] if event.get("exception_type")]
        said += f", then {raised[-1]['exception_type']}" if raised else ""
    if session["status"] == "ended" and session["hang_count"]:
        said += f", after a hang of {text.span(session['hang_seconds'])}"
    return said
