"""merge and diff obey RFC 7396 and one law."""

import json
import random

import pytest

from datacat.errors import WireError
from datacat.wire.state import compose, diff, effective, merge, same

# RFC 7396, appendix A: original, patch, result.
RFC_EXAMPLES = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]

# Values that Python calls equal and JSON does not come often, and so do shared names.
SCALARS = [True, False, 0, 1, 1.0, 0.0, -0.5, "", "a", "1", 2**53, [], [None], [1, {"x": None}], [1.0], [True]]
NAMES = ["a", "b", "c", "", "a.b", "ä"]


def random_object(rng, depth, *, nulls):
    return {
        name: None
        if nulls and rng.random() < 0.25
        else random_object(rng, depth - 1, nulls=nulls)
        if depth and rng.random() < 0.4
        else rng.choice(SCALARS)
        for name in rng.sample(NAMES, rng.randint(0, len(NAMES)))
    }


@pytest.mark.parametrize(("original", "patch", "result"), RFC_EXAMPLES)
def test_merge_does_what_the_examples_of_the_rfc_say(original, patch, result):
    assert same(merge(json.loads(original), json.loads(patch)), json.loads(result))


def test_a_diff_merged_into_the_old_state_is_the_new_state_in_100000_random_cases():
    rng = random.Random(7396)
    for _ in range(100_000):
        old = random_object(rng, 3, nulls=False)
        new = random_object(rng, 3, nulls=False)

        assert same(merge(old, diff(old, new)), new)


def test_a_diff_of_equal_states_is_empty():
    rng = random.Random(1)
    for _ in range(1000):
        state = random_object(rng, 3, nulls=False)

        assert diff(state, json.loads(json.dumps(state))) == {}


def test_the_effective_part_of_a_patch_does_the_same_and_is_empty_when_nothing_changes():
    rng = random.Random(2)
    for _ in range(20_000):
        state = random_object(rng, 3, nulls=False)
        patch = random_object(rng, 3, nulls=True)
        part = effective(state, patch)

        after = merge(state, patch)
        assert same(merge(state, part), after)
        assert (part == {}) == same(state, after)


def test_two_patches_composed_do_what_both_do_one_after_the_other():
    rng = random.Random(3)
    composed_pairs = 0
    for _ in range(20_000):
        state = random_object(rng, 2, nulls=False)
        first = random_object(rng, 2, nulls=True)
        second = random_object(rng, 2, nulls=True)
        try:
            both = compose(first, second)
        except WireError:
            continue
        composed_pairs += 1

        assert same(merge(state, both), merge(merge(state, first), second))
    assert composed_pairs > 1000


def test_merge_and_diff_leave_their_arguments_alone():
    rng = random.Random(4)
    for _ in range(2000):
        state, patch = random_object(rng, 3, nulls=False), random_object(rng, 3, nulls=True)
        before = json.dumps([state, patch])
        merge(state, patch)
        effective(state, patch)
        diff(state, random_object(rng, 3, nulls=False))

        assert json.dumps([state, patch]) == before


def test_a_new_state_with_a_null_member_is_refused_with_its_name():
    with pytest.raises(WireError, match="'x' is null"):
        diff({}, {"a": {"x": None}})


def test_true_one_and_one_point_zero_are_three_values():
    assert not same({"a": True}, {"a": 1})
    assert not same([1], [1.0])
    assert diff({"a": 1}, {"a": 1.0}) == {"a": 1.0}
