import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.proportion import proportion_confint

from crunchmark.paired import LEVEL, compare, interval_of, mcnemar, state_of
from crunchmark.proportion import Z, ratio_score, tango, wilson

CAVO = (59, 6, 16, 80)  # complete response before and after: both, first only, second only, neither
BENTUR = (1, 1, 7, 12)  # airway hyper-responsiveness


def pairs(both, first, second, neither):
    counts = [both, first, second, neither]
    return np.repeat([1.0, 1, 0, 0], counts), np.repeat([1.0, 0, 1, 0], counts)


@pytest.mark.parametrize(
    ("table", "low", "high"), [(CAVO, -0.1240, -0.0054), (BENTUR, -0.5172, -0.0260)]
)  # Fagerland, Lydersen and Laake (2017), chapter 8
def test_tangos_interval_on_published_tables(table, low, high):
    n = sum(table)
    assert tango(table[1] / n, table[2] / n, n) == (
        pytest.approx(low, abs=6e-5),
        pytest.approx(high, abs=6e-5),
    )


def test_the_ratio_score_inverted_is_the_published_interval():
    one, two = pairs(*CAVO)
    ends = [brentq(lambda r, z=z: ratio_score(one, two, r) - z, 0.1, 5) for z in (Z, -Z)]
    assert ends == [pytest.approx(0.7476, abs=5e-5), pytest.approx(0.9876, abs=5e-5)]


@pytest.mark.parametrize(("right", "n"), [(0, 20), (20, 20), (6, 20), (655, 1001)])
def test_wilsons_interval_is_that_of_statsmodels(right, n):
    assert wilson(right / n, n) == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-7)
    low, high = interval_of(np.repeat([1.0, 0.0], [right, n - right]), np.ones(n), "mean")
    assert (low, high) == wilson(right / n, n)
    assert high > low


def test_more_variance_widens():
    assert wilson(0.5, 100, extra=0.01)[1] > wilson(0.5, 100)[1] > wilson(0.5, 100, design=0.5)[1]
    assert tango(0.1, 0.2, 100, extra=0.01)[0] < tango(0.1, 0.2, 100)[0] < tango(0.1, 0.2, 100, design=0.5)[0]


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5)])
def test_tango_at_the_edges_holds_the_difference(gained, lost):
    gained, lost = (gained, lost) if gained + lost <= 1 else (0.5, 0.5)
    low, high = tango(gained, lost, 30)
    assert -1 <= low <= gained - lost <= high <= 1
    assert low < high


def test_mcnemars_exact_test_is_that_of_statsmodels():
    table = [[CAVO[0], CAVO[1]], [CAVO[2], CAVO[3]]]
    assert mcnemar(CAVO[1], CAVO[2]) == pytest.approx(reference_mcnemar(table, exact=True).pvalue)
    assert mcnemar(0, 0) == 1.0


def drawn(seed, n, kind):
    rng = np.random.default_rng(seed)
    if kind == "yes_no":
        dense = (rng.random(n) < rng.random()).astype(float)
        return np.where(rng.random(n) < rng.random() * 0.3, 1 - dense, dense), dense, "mean"
    dense = rng.gamma(4, 0.5, n)
    return dense * rng.normal(1, 0.1) + rng.normal(0, 0.2, n), dense, kind


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 120),
    kind=st.sampled_from(["yes_no", "mean", "exp", "p95"]),
    higher=st.booleans(),
)
def test_state_and_p_values_say_the_same(seed, n, kind, higher):
    score, dense, kind = drawn(seed, n, kind)
    found = compare(score, dense, np.ones(n), kind, higher)
    assert (found.state == "match") == (found.p_match <= LEVEL)
    assert (found.state == "fail") == (found.p_fail <= LEVEL)
    assert found.state == state_of(found.p_match, found.p_fail)
    assert 0 <= min(found.p_match, found.p_fail) <= max(found.p_match, found.p_fail) <= 1
    assert found.low <= found.high


def test_flips_are_counted_of_right_and_wrong_answers_only():
    score, dense = pairs(5, 2, 3, 1)
    found = compare(score, dense, np.ones(11))
    assert (found.lost, found.gained) == (3, 2)
    assert compare(score / 2, dense, np.ones(11)).lost is None
    assert compare(score, dense, np.arange(1.0, 12)).lost is None  # items of different weight are no counts


def test_without_a_margin_there_is_no_p_value_of_it():
    score, dense = pairs(50, 2, 9, 1)
    for one in (score, score * 0.7):
        found = compare(one, dense, np.ones(62), margin=None)
        assert found.state == "measured"
        assert np.isnan(found.p_match)
        assert np.isnan(found.p_fail)


def test_a_p_value_is_finer_than_the_resamples():
    rng = np.random.default_rng(0)
    dense = rng.gamma(4, 0.5, 300)
    found = compare(dense * 1.01 + rng.normal(0, 0.01, 300), dense, np.ones(300), "exp", False)
    assert found.p_match < 1e-6


@pytest.mark.parametrize(("n", "state"), [(3, "undecided"), (8, "match")])
def test_identical_scores_of_a_handful_of_windows_are_no_match(n, state):
    nats = np.linspace(1.0, 2.0, n)
    found = compare(nats, nats, np.ones(n), "exp", False)
    assert (found.state, found.p_match) == (state, pytest.approx(0.5**n))


def test_one_item_of_many_lost_is_a_match_and_all_lost_a_fail():
    dense = np.ones(300)
    hurt = dense.copy()
    hurt[0] = 5 / 6
    assert compare(hurt, dense, np.ones(300)).state == "match"
    assert compare(dense / 2, dense, np.ones(300)).state == "fail"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["yes_no", "mean"])
def test_intervals_cover_and_errors_are_rare(kind):
    rng, hits, wrong = np.random.default_rng(5), 0, [0, 0]
    for _ in range(300):
        if kind == "yes_no":
            draw = rng.random(80)
            dense, score = (draw < 0.9).astype(float), ((draw >= 0.045) & (draw < 0.9)).astype(float)
        else:
            dense = rng.gamma(9, 0.1, 80)
            score = dense - rng.gamma(2, 0.0225, 80)
        found = compare(score, dense, np.ones(80))
        hits += found.low <= -0.045 <= found.high
        wrong[0] += found.state == "match"
        wrong[1] += found.state == "fail"
    assert 0.92 <= hits / 300 <= 0.985
    assert max(wrong) / 300 <= 0.055


@pytest.mark.parametrize("changed", [1, 2, 5])
def test_an_answer_that_got_worse_makes_a_match_no_surer(changed):
    """Of 50 scores a loss of one sixth is no better evidence than none at all, which wants 74 items."""
    dense, score = np.ones(50), np.ones(50)
    score[:changed] = 5 / 6
    equal = compare(dense, dense, np.ones(50)).p_match
    assert compare(score, dense, np.ones(50)).p_match >= equal


def test_rare_total_losses_beside_small_ones_are_seldom_called_a_match():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(300):
        u = rng.random(50)
        score = np.where(u < 0.045, 0.0, np.where(u < 0.075, 5 / 6, 1.0))  # 5 % lost: on the margin
        score[0] = 5 / 6
        wrong += compare(score, np.ones(50), np.ones(50)).state == "match"
    assert wrong <= 0.05 * 300
