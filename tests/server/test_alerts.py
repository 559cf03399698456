"""Alerts as decisions: once when it begins, once when it is over, and nothing in between."""

import pytest

from datacat.server import alerts
from datacat.server.alerts import CLEAR_US, Firing, State, again, judge, sendings, step
from datacat.server.rules import Rule

NOW = 1_800_000_000_000_000
GROUP = {
    "product": "editor", "signature": "s1", "title": "KeyError in save", "count": 4, "sessions": 3, "machines": 2,
    "last_version": "1.2", "example_session": "i1", "new": True, "regressed": False,
}  # fmt: skip
VERSION = {"product": "editor", "version": "1.2", "started": 100, "crash_free_rate": 0.98, "unknown_share": 0.01}


def rule(kind="hung_now", **more):
    return Rule("r", kind, ("team",), **more)


def fires(name):
    return Firing("r", name, f"title of {name}", "text", {})


class Story:
    """A rule over time."""

    def __init__(self, kind="hung_now"):
        self.rule, self.state, self.now = rule(kind), State(), NOW

    def next(self, *instances, after_us=30_000_000, judged=True):
        """Let time pass; (status, title) of each message."""
        self.now += after_us
        fired = {"r": [fires(name) for name in instances]} if judged else {}
        self.state, told = step(self.state, [self.rule], fired, self.now)
        return [(message.status, message.title) for _, message in told]


def test_it_is_said_once_when_it_begins_and_once_when_it_is_over():
    story = Story()
    assert story.next() == []
    assert story.next("a") == [("firing", "title of a")]
    assert [story.next("a") for _ in range(50)] == [[]] * 50
    assert story.next(after_us=CLEAR_US) == [("resolved", "title of a")]
    assert story.next() == []
    assert story.next("a") == [("firing", "title of a")]


def test_a_number_on_the_edge_makes_no_flood():
    story = Story()
    said = [story.next(*(["a"] if number % 2 else [])) for number in range(100)]
    assert [one for one in said if one] == [[("firing", "title of a")]]


def test_two_things_of_a_rule_are_two_alerts():
    story = Story()
    assert story.next("a") == [("firing", "title of a")]
    assert story.next("a", "b") == [("firing", "title of b")]
    assert story.next("b", after_us=CLEAR_US) == [("resolved", "title of a")]


def test_a_rule_that_could_not_be_judged_stays_as_it_was():
    story = Story()
    story.next("a")
    assert story.next(judged=False, after_us=10 * CLEAR_US) == []
    assert story.next("a") == []


def test_a_rule_that_was_removed_is_forgotten_without_a_word():
    story = Story()
    story.next("a")
    state, told = step(story.state, [], {}, story.now)
    assert (state, told) == (State(), [])


def test_what_happened_before_a_rule_was_made_is_not_said():
    story = Story("new_crash_group")
    assert story.next("old") == []
    assert story.next("old", "new") == [("firing", "title of new")]
    assert story.next(after_us=CLEAR_US) == []


def test_a_hundred_new_things_make_twenty_messages_that_count_the_rest():
    story = Story()
    story.next()
    told = step(story.state, [story.rule], {"r": [fires(str(number)) for number in range(100)]}, NOW)[1]
    assert len(told) == alerts.MAX_MESSAGES
    assert told[-1][1].text.endswith("and 80 more")


@pytest.mark.parametrize(
    ("kind", "row", "says"),
    [
        ("new_crash_group", GROUP, "editor: a new crash: KeyError in save"),
        ("new_crash_group", {**GROUP, "new": False}, None),
        ("regression", {**GROUP, "regressed": True}, "editor: a crash is back: KeyError in save"),
        ("regression", GROUP, None),
        ("crash_free_rate", VERSION, "editor 1.2: 98.00% without a crash"),
        ("crash_free_rate", {**VERSION, "crash_free_rate": 0.99}, None),
        ("crash_free_rate", {**VERSION, "started": 49}, None),
        ("crash_free_rate", {**VERSION, "crash_free_rate": None}, None),
        ("hung_now", {"product": "editor", "hung_now": 1}, "editor: 1 sessions hang"),
        ("hung_now", {"product": "editor", "hung_now": 0}, None),
        ("no_data", {"product": "editor", "ingest_age_seconds": 3601.0}, "editor: no data"),
        ("no_data", {"product": "editor", "ingest_age_seconds": 3600.0}, None),
        ("no_data", {"product": "editor", "ingest_age_seconds": None}, None),
        ("store", {"problem": "full"}, "the store is in trouble"),
        ("store", {"problem": ""}, None),
    ],
)
def test_each_rule_fires_when_it_says(kind, row, says):
    assert [one.title for one in judge(rule(kind), [row])] == ([says] if says else [])


def test_a_rule_of_one_product_ignores_others_and_the_store_has_none():
    assert judge(rule(product="game"), [{"product": "editor", "hung_now": 9}]) == []
    assert len(judge(rule("store", product="game"), [{"problem": "full"}])) == 1


def test_a_message_goes_to_every_webhook_of_its_rule():
    both = Rule("r", "hung_now", ("team", "pager"))
    told = step(State(), [both], {"r": [fires("a")]}, NOW)[1]
    assert [(one.webhook, one.due) for one in sendings(told, NOW)] == [("team", NOW), ("pager", NOW)]


def test_what_cannot_be_sent_is_tried_later_and_later_for_a_day():
    told = step(State(), [rule()], {"r": [fires("a")]}, NOW)[1]
    sending, now, waits = sendings(told, NOW)[0], NOW, []
    while (later := again(sending, now, None)) is not None:
        waits.append((later.due - now) // 1_000_000)
        sending, now = later, later.due
    assert waits[:9] == [10, 20, 40, 80, 160, 320, 640, 1280, 2560]
    assert set(waits[9:]) == {3600}
    assert 23 * 3600 < sum(waits) <= 24 * 3600


def test_a_server_that_asks_to_wait_is_heard():
    told = step(State(), [rule()], {"r": [fires("a")]}, NOW)[1]
    sending = sendings(told, NOW)[0]
    assert again(sending, NOW, 120).due == NOW + 120_000_000
    assert again(sending, NOW, 1e9).due == NOW + alerts.MAX_RETRY_US
    assert again(sending, NOW, 0).due == NOW + alerts.FIRST_RETRY_US
