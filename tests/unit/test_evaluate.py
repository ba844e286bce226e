import json
import math
from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crunchmark.evaluate import aggregate, compare, rows
from crunchmark.proportion import ratio_score
from crunchmark.task import Item, Metric

ACC = Metric("acc", chance=0.25)
PPL = Metric("perplexity", kind="exp", higher_is_better=False)
BITS = Metric("bits", higher_is_better=False)


def items(scores, metric="acc", weights=None):
    weights = weights or [1.0] * len(scores)
    pairs = enumerate(zip(scores, weights, strict=True))
    return [Item(f"q/{i}", metric, score, weight) for i, (score, weight) in pairs]


def test_mean_and_its_standard_error_by_hand():
    found = aggregate(items([1, 0, 1, 1]), {"acc": ACC})["acc"]
    assert (found.n, found.value) == (4, 0.75)
    assert found.stderr == pytest.approx(math.sqrt(0.75 / 3 / 4))  # sum of squares 0.75, n - 1 = 3, n = 4


def test_weighted_mean_by_hand():
    found = aggregate(items([2.0, 5.0], weights=[3.0, 1.0]), {"acc": ACC})["acc"]
    assert found.value == 2.75  # (2 * 3 + 5) / 4
    # residuals -.75 and 2.25, shares .75 and .25, both products .5625; n / (n - 1) = 2
    assert found.stderr == pytest.approx(math.sqrt(2 * 2 * 0.5625**2))


def test_perplexity_is_exp_of_the_token_mean_with_delta_method_error():
    scores, weights = [1.0, 2.0, 4.0], [1.0, 1.0, 2.0]
    found = aggregate(items(scores, "perplexity", weights), {"perplexity": PPL})["perplexity"]
    assert found.value == pytest.approx(math.exp(11 / 4))
    share = np.array(weights) / 4
    spread = math.sqrt(((share * (np.array(scores) - 11 / 4)) ** 2).sum() * 3 / 2)
    assert found.stderr == pytest.approx(math.exp(11 / 4) * spread)


def test_one_item_has_no_error_bar_and_no_items_are_an_error():
    assert math.isnan(aggregate(items([1.0]), {"acc": ACC})["acc"].stderr)
    with pytest.raises(ValueError, match="no items for the metric 'acc'"):
        aggregate([], {"acc": ACC})
    with pytest.raises(ValueError, match="'q/0' carries the metric 'f1'"):
        aggregate(items([1.0], "f1"), {"acc": ACC})


def test_p_value_is_mcnemars_by_hand():
    dense = items([1] * 8 + [0] * 3 + [1] * 5)
    ours = items([0] * 8 + [1] * 2 + [0] + [1] * 5)  # 8 lost, 2 won, 6 agree
    expected = 2 * sum(comb(10, k) for k in (0, 1, 2)) / 2**10
    assert compare(ours, dense, ACC).p_value == pytest.approx(expected)
    assert compare(dense, ours, ACC).p_value == pytest.approx(expected)


def test_identical_answers_match_only_where_there_are_enough():
    for scores, state in (([0] * 9, "undecided"), ([1, 0, 1], "undecided"), ([1] * 72, "undecided")):
        found = compare(items(scores), items(scores), ACC)
        width = 1.96**2 / (len(scores) + 1.96**2)  # Tango's, where no pair disagrees
        assert (found.state, found.delta, found.p_value) == (state, 0, 1)
        assert (found.low, found.high) == (pytest.approx(-width, abs=1e-4), pytest.approx(width, abs=1e-4))
    assert compare(items([1] * 74), items([1] * 74), ACC).state == "match"
    assert compare(items([0] * 3), items([1] * 3), ACC).state == "undecided"
    assert compare(items([0] * 9), items([1] * 9), ACC).state == "fail"


def most_likely(score, dense, ratio, fine=600):
    """The score statistic with the constrained table found by search."""
    both, gained = (score * dense).sum(), (score > dense).sum()
    lost, none = (score < dense).sum(), ((1 - score) * (1 - dense)).sum()
    low, high = [0.0, 0.0], [1.0, 1.0]
    for _ in range(8):
        t, u = np.meshgrid(np.linspace(low[0], high[0], fine), np.linspace(low[1], high[1], fine))
        g = ratio * u + (ratio - 1) * t
        rest = 1 - t - u - g
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = ((both, t), (gained, g), (lost, u), (none, rest))
            value = sum(np.where(k > 0, k * np.log(np.maximum(p, 0)), 0.0) for k, p in parts)
        value[(g < 0) | (rest < 0)] = -np.inf
        best = [x[np.unravel_index(np.argmax(value), value.shape)] for x in (t, u)]
        step = [(h - lo) / fine * 4 for lo, h in zip(low, high, strict=True)]
        low, high = (
            [max(0, b - s) for b, s in zip(best, step, strict=True)],
            [min(1, b + s) for b, s in zip(best, step, strict=True)],
        )
    gain = ratio * best[1] + (ratio - 1) * best[0]
    difference = score.mean() - ratio * dense.mean()
    return math.sqrt(len(score)) * difference / math.sqrt(ratio * (gain + best[1]))


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.95, 1.05])
@pytest.mark.parametrize("seed", range(4))
def test_the_ratio_score_is_that_of_the_most_likely_table(seed, ratio):
    rng = np.random.default_rng(seed)
    dense = (rng.random(60) < 0.7).astype(float)
    score = np.where(rng.random(60) < 0.15, 1 - dense, dense)
    assert ratio_score(score, dense, ratio) == pytest.approx(most_likely(score, dense, ratio), abs=1e-3)


@pytest.mark.parametrize("n", [40, 100, 300])
def test_a_loss_on_the_margin_is_seldom_called_a_match_or_a_failure(n):
    rng = np.random.default_rng(n)
    found = []
    for _ in range(2000):
        dense = (rng.random(n) < 0.9).astype(float)
        found.append(ratio_score(np.where((dense == 1) & (rng.random(n) < 0.05), 0, dense), dense, 0.95))
    assert np.mean(np.array(found) >= 1.96) <= 0.03
    assert np.mean(np.array(found) <= -1.96) <= 0.045


def test_three_states_of_an_accuracy():
    dense = items([1] * 800 + [0] * 200)  # the margin is 0.04
    same = items([0] * 5 + [1] * 795 + [0] * 200)
    near = items([0] * 40 + [1] * 760 + [0] * 200)
    far = items([0] * 200 + [1] * 600 + [0] * 200)
    assert [compare(cell, dense, ACC).state for cell in (same, near, far)] == ["match", "undecided", "fail"]
    found = compare(far, dense, ACC)
    assert (found.dense, found.delta) == (0.8, pytest.approx(-0.2))
    error = math.sqrt(0.2 * 0.8 / 1000)  # the difference is -1 with probability .2
    assert found.low == pytest.approx(-0.2 - 1.96 * error, abs=0.004)
    assert found.high == pytest.approx(-0.2 + 1.96 * error, abs=0.004)


def test_three_states_of_a_perplexity_where_lower_is_better():
    rng = np.random.default_rng(0)
    base = rng.normal(2.0, 0.3, 200)
    noise = rng.normal(0, 0.02, 200)
    dense = items(base.tolist(), "perplexity")

    def moved(ratio):
        return compare(items((base + math.log(ratio) + noise).tolist(), "perplexity"), dense, PPL)

    states = [moved(ratio).state for ratio in (0.7, 1.04, 1.05, 1.06)]
    assert states == ["match", "match", "undecided", "fail"]
    worse = moved(1.06)
    assert worse.delta == pytest.approx(0.06 * worse.dense, abs=0.01 * worse.dense)
    assert 0 < worse.low < worse.delta < worse.high
    assert worse.p_value < 0.01


def test_lower_is_better_mean_uses_the_margin_above():
    base = np.linspace(0.5, 1.5, 100)
    dense = items(base.tolist(), "bits")
    assert compare(items((base * 1.03).tolist(), "bits"), dense, BITS).state == "match"
    assert compare(items((base * 1.08).tolist(), "bits"), dense, BITS).state == "fail"


def test_a_broken_model_fails_and_a_broken_parent_decides_nothing():
    good, bad = items([2.0, 3.0], "perplexity"), items([2.0, math.nan], "perplexity")
    assert compare(bad, good, PPL).state == "fail"
    assert compare(items([2.0, math.inf], "perplexity"), good, PPL).state == "fail"
    assert compare(items([900.0, 900.0], "perplexity"), good, PPL).state == "fail"
    assert compare(good, bad, PPL).state == "undecided"


def test_one_item_decides_nothing():
    assert compare(items([0.0]), items([1.0]), ACC).state == "undecided"


def test_ids_and_weights_must_agree():
    with pytest.raises(ValueError, match="compressed items lack the id 'q/2'"):
        compare(items([1, 0]), items([1, 0, 1]), ACC)
    with pytest.raises(ValueError, match="dense items lack the id 'q/2'"):
        compare(items([1, 0, 1]), items([1, 0]), ACC)
    with pytest.raises(ValueError, match="two items of 'acc' have the id 'q/0'"):
        compare(items([1]) * 2, items([1]), ACC)
    with pytest.raises(ValueError, match=r"item 'q/1' weighs 2\.0, in dense 1\.0"):
        compare(items([1, 0], weights=[1.0, 2.0]), items([1, 1]), ACC)


def test_pairing_is_by_id_not_by_place():
    scores = [k / 100 for k in range(100)] * 2
    assert compare(items(scores)[::-1], items(scores), ACC).state == "match"


def test_rows_are_flat_json_headline_first():
    metrics = {"acc": ACC, "perplexity": PPL}
    both = items([1, 0, 1]) + items([2.0, 3.0, 4.0] * 2, "perplexity")
    found = rows("arc_easy", "abcd", both, metrics, both)
    assert [row["metric"] for row in found] == ["acc", "perplexity"]
    assert [row["headline"] for row in found] == [True, False]
    assert [row["state"] for row in found] == ["undecided", "match"]
    names = "task metric protocol n value stderr value_low value_high coverage flags chance kind margin"
    compared = "dense delta low high p_value p_match p_fail state lost gained"
    assert list(found[0]) == [*names.split(), "higher_is_better", "headline", *compared.split()]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_rows_of_the_dense_cell_and_of_a_single_item():
    (row,) = rows("t", "p", items([1.0]), {"acc": ACC}, None)
    assert (row["state"], row["stderr"], row["chance"]) == ("dense", None, 0.25)
    assert all(row[key] is None for key in ("dense", "delta", "low", "p_match", "lost", "gained"))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_swapping_the_two_mirrors_the_interval(pairs):
    ours, theirs = items([a for a, _ in pairs]), items([b for _, b in pairs])
    one, other = compare(ours, theirs, ACC), compare(theirs, ours, ACC)
    assert one.low == pytest.approx(-other.high, abs=1e-9)
    assert one.p_value == pytest.approx(other.p_value)
    assert one.low <= one.delta + 1e-9 or len(pairs) < 10
    assert one == compare(ours, theirs, ACC)


@pytest.mark.parametrize("ratio", [0.93, 1.0])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(ratio):
    rng = np.random.default_rng(1)
    hit = 0
    for trial in range(100):
        dense = rng.normal(1.0, 0.3, 80)
        ours = dense * ratio + rng.normal(0, 0.1, 80)
        found = compare(items(ours.tolist()), items(dense.tolist()), ACC, seed=trial)
        hit += found.low <= ratio - 1 <= found.high
    assert hit >= 87


def test_a_missing_score_is_counted_and_never_averaged():
    judged = [Item("a", "acc", 1.0), Item("b", "acc", None), Item("c", "acc", 0.0), Item("d", "acc", 1.0)]
    found = aggregate(judged, {"acc": ACC})["acc"]
    assert (found.n, found.value, found.coverage) == (3, pytest.approx(2 / 3), 0.75)
    nothing = aggregate([Item("a", "acc", None)], {"acc": ACC})["acc"]
    assert (nothing.n, nothing.coverage) == (0, 0.0)
    assert math.isnan(nothing.value)
    assert compare([Item("a", "acc", None)], [Item("a", "acc", 1.0)], ACC).state == ("undecided")


def test_pairs_are_those_both_sides_have_a_score_for():
    ours = [Item("a", "acc", 1.0), Item("b", "acc", None), Item("c", "acc", 0.0)]
    dense = [Item("a", "acc", 1.0), Item("b", "acc", 0.0), Item("c", "acc", 1.0)]
    found = compare(ours, dense, ACC)
    assert (found.dense, found.delta) == (1.0, -0.5)


@pytest.mark.parametrize(("missing", "state"), [(4, "match"), (8, "undecided")])
def test_too_many_missing_answers_are_no_match(missing, state):
    dense = items([1.0] * 100)
    ours = [Item(i.id, "acc", None if k < missing else 1.0) for k, i in enumerate(dense)]
    assert compare(ours, dense, ACC).state == state


def test_a_metric_without_margin_is_told_and_not_judged():
    kl = Metric("kl", higher_is_better=False, margin=None)
    row = rows("f", "p", items([0.3, 0.1], "kl"), {"kl": kl}, items([0.0, 0.0], "kl"))[0]
    assert (row["state"], row["dense"], row["delta"]) == ("measured", 0.0, pytest.approx(0.2))
    same = rows("f", "p", items([0.0, 0.0], "kl"), {"kl": kl}, items([0.0, 0.0], "kl"))[0]
    assert same["state"] == "measured"


def test_quantiles_and_their_errors():
    times = items([1.0, 2.0, 3.0, 4.0, 100.0], "ms")
    metrics = {"ms": Metric("ms", kind="median", higher_is_better=False, margin=None)}
    assert aggregate(times, metrics)["ms"].value == 3.0
    slow = Metric("ms", kind="p95", higher_is_better=False)
    assert aggregate(times, {"ms": slow})["ms"].value == pytest.approx(np.quantile([1, 2, 3, 4, 100], 0.95))
    many = np.random.default_rng(0).normal(10, 1, 400)
    found = aggregate(items(list(many), "ms"), metrics)["ms"]
    assert found.stderr == pytest.approx(1.2533 / math.sqrt(400), rel=0.25)  # of a normal median


def test_flags_are_counted_by_metric():
    cut = Item("a", "acc", 1.0, extra={"flags": ["truncated", "empty"]})
    row = rows("t", "p", [cut, Item("b", "acc", 0.0)], {"acc": ACC}, None)[0]
    assert (row["flags"], row["coverage"]) == ({"empty": 1, "truncated": 1}, 1.0)


def test_what_the_parent_scored_in_the_same_moment_is_what_counts():
    metric = Metric("ms", "median", higher_is_better=False, margin=None)
    dense = [Item(str(i), "ms", 50.0) for i in range(3)]  # by itself, on another day
    ours = [Item(str(i), "ms", 10.0 + i, extra={"dense": 20.0 + 2 * i}) for i in range(3)]
    found = compare(ours, dense, metric)
    assert (found.dense, found.delta) == (22, -11)
    assert compare([replace(i, extra={}) for i in ours], dense, metric).dense == 50


def test_a_talk_with_nothing_said_in_any_turn_is_counted_as_empty():
    said = ([" ", ""], ["", "yes"], "", "no", 3, None, [])
    items = [Item(str(i), "m", 0.0, extra={"prediction": one}) for i, one in enumerate(said)]
    (row,) = rows("t", "p", items, {"m": Metric("m")}, None)
    assert row["flags"] == {"empty": 2}
