"""`kick_code` judges and asks as LLM-KICK's released code did when tests/golden/kick.json was written."""

import json

import pytest

from tests.golden import kick_parity

GOLDEN = json.loads(kick_parity.GOLDEN.read_text())
RELEASED = GOLDEN["released"]
PAIRS = [(said, aliases) for said in kick_parity.SAID for aliases in kick_parity.ALIASES]


@pytest.fixture(scope="module")
def ours():
    return kick_parity.ours()


def test_the_golden_file_is_of_these_strings_and_this_commit():
    assert (GOLDEN["said"], GOLDEN["aliases"]) == (kick_parity.SAID, kick_parity.ALIASES)
    assert (GOLDEN["row"], GOLDEN["files"]) == (kick_parity.ROW, kick_parity.FILES)
    assert GOLDEN["commit"] == kick_parity.COMMIT
    assert len(GOLDEN["commit"]) == 40


def test_the_strings_tell_rules_apart():
    for rule in ("factoid", "icra"):
        assert 50 < sum(RELEASED[rule]) < len(PAIRS) - 50
    assert RELEASED["factoid"] != RELEASED["icra"]
    assert len({round(value, 3) for value in RELEASED["f1"]}) > 5


@pytest.mark.parametrize("rule", sorted(RELEASED))
def test_ours_is_what_was_released(rule, ours):
    assert kick_parity.differences({rule: ours[rule]}, {rule: RELEASED[rule]}) == []
    assert len(ours[rule]) == len(RELEASED[rule]) > 0


def test_the_released_icra_rule_calls_nothing_right():
    found = dict(zip([(s, tuple(a)) for s, a in PAIRS], RELEASED["icra"], strict=True))
    assert [found[said, ("Paris",)] for said in ("", ".", "The", "a", "s")] == [1.0] * 5


def test_a_difference_is_told():
    assert kick_parity.differences({"letter": ["A"]}, {"letter": ["B"]}) == [
        "letter 0: ours 'A', released 'B'"
    ]
