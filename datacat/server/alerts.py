"""Alerts as pure decisions: rows of the query layer -> what fires -> which messages that makes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from datacat.server.rules import Rule
from datacat.wire.times import rfc3339

US = 1_000_000
CLEAR_US = 120 * US
"""An alert is over when it did not fire for so long: a number on the edge must not make a message each minute."""
MAX_MESSAGES = 20
"""So many new things a rule says at one time; the rest it counts in the last of them."""
ONCE = frozenset({"new_crash_group", "regression"})
"""Rules about something that happened: they are said once, and never over."""


class Firing(NamedTuple):
    """One thing that a rule has to say now; instance tells things of a rule apart."""

    rule: str
    instance: str
    title: str
    text: str
    values: Mapping[str, Any]


class Active(msgspec.Struct):
    """A thing that fires since a time (us), was last seen at a time, and what was said of it."""

    since: int
    seen: int
    title: str


class State(msgspec.Struct):
    """What is remembered over restarts: what fires, by rule and instance, and the rules that were judged before."""

    active: dict[str, dict[str, Active]] = {}
    known: list[str] = []


class Message(msgspec.Struct):
    """What a webhook is told. status is firing, resolved or test."""

    status: str
    alert: str
    rule: str
    title: str
    text: str
    since: str
    timestamp: str
    values: dict[str, Any] = {}


def judge(rule: Rule, rows: Sequence[Mapping[str, Any]]) -> list[Firing]:
    """Return what the rule has to say about the rows that the query layer gave for it."""
    found = []
    for row in rows:
        product = str(row.get("product", ""))
        match rule.rule:
            case "new_crash_group" | "regression":
                fires = bool(row["new" if rule.rule == "new_crash_group" else "regressed"])
                what = "a new crash" if rule.rule == "new_crash_group" else "a crash is back"
                title = f"{product}: {what}: {row['title']}"
                text = (
                    f"{row['title']}, {row['count']} times in {row['sessions']} sessions on {row['machines']} "
                    f"machines, version {row['last_version']}, for example session {row['example_session']}"
                )
                instance = str(row["signature"])
            case "crash_free_rate":
                rate = row["crash_free_rate"]
                fires = rate is not None and row["started"] >= rule.min_sessions and rate < rule.below
                shown = "unknown" if rate is None else f"{rate:.2%}"
                title = f"{product} {row['version']}: {shown} without a crash"
                unknown = row.get("unknown_share")
                text = (
                    f"{shown} of {row['started']} sessions in {rule.window_h:g} h did not crash, the limit is "
                    f"{rule.below:.2%}" + ("" if not unknown else f"; {unknown:.1%} have an unknown end")
                )
                instance = f"{product} {row['version']}"
            case "hung_now":
                fires = row["hung_now"] > rule.above
                title = f"{product}: {row['hung_now']} sessions hang"
                text = f"{row['hung_now']} sessions hang now, the limit is {rule.above}"
                instance = product
            case "no_data":
                age_s = row["ingest_age_seconds"]
                fires = age_s is not None and age_s > rule.for_s
                title = f"{product}: no data"
                text = f"nothing has come for {age_s or 0:.0f} s, the limit is {rule.for_s:g} s"
                instance = product
            case "store":
                fires = bool(row["problem"])
                title = "the store is in trouble"
                text = str(row["problem"])
                instance = "store"
        if fires and (not rule.product or rule.rule == "store" or product == rule.product):
            found.append(Firing(rule.name, instance, title, text, dict(row)))
    return found


def step(
    state: State, rules: Iterable[Rule], fired: Mapping[str, Sequence[Firing]], now_us: int
) -> tuple[State, list[tuple[Rule, Message]]]:
    """Return the next state and the messages that the change makes.

    fired has what each rule says now; a rule that could not be judged is not in it and stays as it was. What a rule of
    ONCE finds when it is judged for the first time is remembered and not said.
    """
    active: dict[str, dict[str, Active]] = {}
    told: list[tuple[Rule, Message]] = []
    known = set(state.known)
    for rule in rules:
        before = state.active.get(rule.name, {})
        if rule.name not in fired:
            active[rule.name] = dict(before)
            continue
        now, new = _kept(rule, before, now_us, told, {one.instance for one in fired[rule.name]}), []
        for one in fired[rule.name]:
            if one.instance not in now:
                new.append(one)
            since = now[one.instance].since if one.instance in now else now_us
            now[one.instance] = Active(since, now_us, one.title)
        if rule.rule not in ONCE or rule.name in known:
            told += [(rule, _message(rule, one, now_us)) for one in new[:MAX_MESSAGES]]
            if len(new) > MAX_MESSAGES:
                told[-1][1].text += f"; and {len(new) - MAX_MESSAGES} more"
        known.add(rule.name)
        active[rule.name] = now
    return State(active, sorted(known & set(active))), told


def _kept(
    rule: Rule, before: Mapping[str, Active], now_us: int, told: list[tuple[Rule, Message]], firing: set[str]
) -> dict[str, Active]:
    """Return what goes on firing; what is over is told, when the rule is one that tells it."""
    kept = {}
    for instance, one in before.items():
        if instance in firing or now_us - one.seen < CLEAR_US:
            kept[instance] = one
        elif rule.rule not in ONCE:
            lasted_s = (now_us - one.since) / US
            told.append(
                (
                    rule,
                    Message(
                        "resolved",
                        rule.name,
                        rule.rule,
                        one.title,
                        f"it is over after {lasted_s:.0f} s",
                        rfc3339(one.since),
                        rfc3339(now_us),
                    ),
                )
            )
    return kept


def _message(rule: Rule, one: Firing, now_us: int) -> Message:
    time = rfc3339(now_us)
    return Message("firing", rule.name, rule.rule, one.title, one.text, time, time, dict(one.values))


def test_message(alert: str, rule: str, now_us: int) -> Message:
    """Return a message that says that the way works."""
    time = rfc3339(now_us)
    return Message("test", alert, rule, f"test of {alert}", "datacat can reach you this way", time, time)


class Sending(msgspec.Struct):
    """A message on its way to a webhook: how often it was tried, when (us) it is tried next, until when at all."""

    webhook: str
    message: Message
    tries: int
    due: int
    until: int


FIRST_RETRY_US = 10 * US
MAX_RETRY_US = 3600 * US
GIVE_UP_US = 24 * 3600 * US
MAX_WAITING = 1000
"""Messages that wait; beyond, the oldest is dropped."""


def sendings(told: Iterable[tuple[Rule, Message]], now_us: int) -> list[Sending]:
    """Return what has to be sent now."""
    return [Sending(hook, one, 0, now_us, now_us + GIVE_UP_US) for rule, one in told for hook in rule.webhooks]


def again(sending: Sending, now_us: int, retry_after_s: float | None) -> Sending | None:
    """Return when to try again what could not be sent; None: its time is over."""
    wait_us = min(FIRST_RETRY_US << min(sending.tries, 20), MAX_RETRY_US)
    if retry_after_s is not None:
        wait_us = max(wait_us, min(round(retry_after_s * US), MAX_RETRY_US))
    due = now_us + wait_us
    if due > sending.until:
        return None
    return Sending(sending.webhook, sending.message, sending.tries + 1, due, sending.until)
