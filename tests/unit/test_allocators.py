"""The rules of allocators on plain numbers: optima against brute force, budgets, means, bad knobs."""

import itertools
import json
import random

import pytest
import torch
from toy_trial import Toy

from crunchmark import Room, around, entropic
from crunchmark.allocation import Plan, fit
from crunchmark.programme import assign
from methods.allocate.components import Components
from methods.allocate.dlp import DLP
from methods.allocate.entropic import Entropic
from methods.allocate.evopress import EvoPress
from methods.allocate.greedy import Greedy
from methods.allocate.ilp import ILP
from methods.allocate.l_greco import LGreCo, cheapest
from methods.allocate.owl import OWL
from methods.allocate.replay import Replay
from methods.allocate.strs import STRS
from methods.allocate.welore import WeLore

ALIKE = dict.fromkeys("abc", (8, 8))
UNLIKE = {"a": (8, 8), "b": (8, 16), "c": (4, 8), "d": (16, 16)}
HARM = {"a": 1.0, "b": 4.0, "c": 9.0, "d": 0.5}


@pytest.mark.parametrize("seed", range(6))
def test_the_programme_finds_what_brute_force_finds(seed):
    dice = random.Random(seed)
    errors = [[dice.random() for _ in range(4)] for _ in range(4)]
    costs = [sorted(dice.randint(1, 9) for _ in range(4)) for _ in range(4)]
    found = 0
    for limit in range(1, 40):
        plans = [p for p in itertools.product(range(4), repeat=4) if paid(costs, p) <= limit]
        chosen = cheapest(errors, costs, limit)
        assert (chosen is None) == (not plans)
        if plans:
            assert paid(costs, chosen) <= limit
            assert paid(errors, chosen) == pytest.approx(min(paid(errors, p) for p in plans))
            found += 1
    assert found > 10


@pytest.mark.parametrize("seed", range(6))
def test_the_integer_programme_finds_what_brute_force_finds(seed):
    dice = random.Random(seed)
    scale = 10.0 ** dice.randint(-9, 9)
    costs = [[scale * dice.random() for _ in range(4)] for _ in range(4)]
    sizes = [sorted(dice.randint(1, 9) for _ in range(4)) for _ in range(4)]
    found = 0
    for limit in range(1, 40, 3):
        plans = [p for p in itertools.product(range(4), repeat=4) if paid(sizes, p) <= limit]
        chosen = assign(costs, sizes, limit, 10.0)
        assert (chosen is None) == (not plans)
        if plans:
            assert paid(sizes, chosen.picks) <= limit
            assert chosen.cost == paid(costs, chosen.picks)
            assert chosen.cost == pytest.approx(min(paid(costs, p) for p in plans), rel=2e-4)
            assert 0 <= chosen.gap < 2e-4
            found += 1
    assert found > 5


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [60.0, 1e-6])
@pytest.mark.parametrize("seed", range(2))
def test_the_integer_programme_is_within_its_limit_and_no_worse_than_equal_options(seed, seconds):
    """Also where there is no time to solve it."""
    dice = random.Random(seed)
    sizes = [sorted(dice.randint(1, 10**6) for _ in range(30)) for _ in range(60)]
    costs = [sorted((dice.random() ** 3 for _ in row), reverse=True) for row in sizes]
    for share in (0.3, 0.8):
        limit = share * sum(row[-1] for row in sizes)
        equal = [max(0, sum(s <= share * row[-1] for s in row) - 1) for row in sizes]
        assert paid(sizes, equal) <= limit
        chosen = assign(costs, sizes, limit, seconds)
        assert paid(sizes, chosen.picks) <= limit
        assert chosen.cost <= paid(costs, equal)
        if seconds == 60.0:
            assert chosen.cost < 0.9 * paid(costs, equal)
            assert chosen.gap < 2e-4
        else:
            assert chosen.gap is None or chosen.gap > 1e-3


def test_the_integer_programme_knows_what_is_too_much():
    assert assign([[1.0], [2.0]], [[3.0], [4.0]], 6.9, 10.0) is None
    assert assign([[1.0], [2.0]], [[3.0], [4.0]], 7.0, 10.0).picks == [0, 0]
    assert assign([[0.0, 0.0]], [[1.0, 2.0]], 2.0, 10.0).gap == 0


@pytest.mark.parametrize(
    "steps", [{}, {"a": [0.2, 0.6, 1.0], "b": [0.1, 0.4, 1.0], "c": [0.3, 1.0]}], ids=str
)
@pytest.mark.parametrize("share", [0.35, 0.5, 0.7])
def test_ilp_meets_the_budget_and_is_no_worse_than_equal_shares(share, steps):
    toy = Toy(ALIKE, share, harm=HARM, steps=steps)
    keeps = toy.give(ILP(relative=True))
    assert toy.nbytes(keeps) <= toy.goal + 1e-6
    equal = {n: max((s for s in steps.get(n, [share]) if s <= share), default=None) for n in ALIKE}
    assert None not in equal.values()
    assert toy.loss(keeps, ()) < toy.loss(equal, ())
    if steps:
        assert all(keeps[n] in steps[n] for n in ALIKE)
        plans = [dict(zip("abc", p, strict=True)) for p in itertools.product(*steps.values())]
        best = min(toy.loss(p, ()) for p in plans if toy.nbytes(p) <= toy.goal + 1e-6)
        assert toy.loss(keeps, ()) == pytest.approx(best)


def paid(table, picks):
    return sum(row[k] for row, k in zip(table, picks, strict=True))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3])
def test_greedy_is_optimal_at_what_it_spends(share):
    shapes = {"a": (20, 30), "b": (40, 10), "c": (30, 30)}
    dice = torch.Generator().manual_seed(3)
    energies = {n: torch.rand(4, generator=dice).double().sort(descending=True).values for n in shapes}
    keeps = Toy(shapes, share, energies=energies).give(Greedy())
    ranks = [round(keeps[n] * o * i / (o + i)) for n, (o, i) in shapes.items()]
    costs = [[r * (o + i) for r in range(5)] for o, i in shapes.values()]
    tails = [[float(e[r:].sum() / e.sum()) for r in range(5)] for e in energies.values()]
    plans = [p for p in itertools.product(range(5), repeat=3) if paid(costs, p) <= paid(costs, ranks)]
    assert paid(tails, ranks) == pytest.approx(min(paid(tails, p) for p in plans))
    assert paid(costs, ranks) <= share * 1900 < paid(costs, ranks) + 60


def test_greedy_keeps_a_layer_dense_whose_factors_outgrow_it():
    flat = torch.ones(8, dtype=torch.float64)
    steep = torch.tensor([1.0] + [1e-9] * 7, dtype=torch.float64)
    keeps = Toy({"a": (8, 8), "b": (8, 8)}, 0.65, energies={"a": flat, "b": steep}).give(Greedy())
    assert keeps == {"a": 1.0, "b": 0.25}


def test_shares_around_a_mean_keep_it():
    shares = around(0.5, [3.0, 1.0, 2.0, 2.0], 0.1, 0.0)
    assert sum(shares) / 4 == pytest.approx(0.5, abs=1e-12)
    assert shares[0] - shares[1] == pytest.approx(0.2)
    assert around(0.5, [1.0, 1.0], 0.1, 0.0) == [0.5, 0.5]
    assert around(0.5, [3.0, 1.0], 0.0, 0.0) == [0.5, 0.5]
    assert min(around(0.1, [0.0, 1.0], 0.1, 0.05)) == 0.05


@pytest.mark.parametrize(("mean", "eps"), [(0.3, 0.1), (0.3, 1e3), (0.6, 0.05), (0.9, 0.1)])
def test_entropic_keeps_the_mean_and_falls_with_influence(mean, eps):
    influence = [0.4, 0.05, 0.2, 0.21]
    phi = entropic(influence, mean, eps, cap=0.8)
    assert sum(phi) / 4 == pytest.approx(mean, abs=1e-9)
    assert max(phi) <= max(0.8, mean) + 1e-9
    ranked = sorted(range(4), key=influence.__getitem__)
    assert all(phi[a] >= phi[b] - 1e-12 for a, b in itertools.pairwise(ranked))
    if eps > 1:
        assert phi == pytest.approx([mean] * 4, rel=1e-3)


def test_evopress_finds_the_optimum_of_an_additive_fitness():
    toy = Toy(ALIKE, 0.5, harm=HARM)
    keeps = toy.give(EvoPress(generations=60, offspring=8, samples=[1], survivors=[1], steps=2))
    grid = [k / 8 for k in range(1, 9)]
    plans = [dict(zip("abc", p, strict=True)) for p in itertools.product(grid, repeat=3) if sum(p) <= 1.5]
    best = min(toy.loss(p, ()) for p in plans)
    assert len(plans) > 50
    assert toy.loss(keeps, ()) == pytest.approx(best)
    assert best < toy.loss(dict.fromkeys("abc", 0.5), ())


RUNGS = {"a": [0.25, 0.5, 0.75, 1.0], "b": [0.1, 0.4, 1.0], "c": [0.3, 1.0], "d": [0.2, 0.45, 0.7, 1.0]}
DROPPED = {"units": [["a", "c"], ["b"], ["d"]], "steps": dict.fromkeys(UNLIKE, (0.0, 1.0))}


@pytest.mark.parametrize("more", [{}, {"steps": RUNGS}, DROPPED], ids=["any", "sizes", "drop"])
@pytest.mark.parametrize("share", [0.45, 0.6, 0.8])
def test_every_candidate_of_evopress_meets_the_budget(more, share):
    toy = Toy(UNLIKE, share, harm=HARM, **more)
    keeps = toy.give(EvoPress(generations=12, offspring=6))
    again = Toy(UNLIKE, share, harm=HARM, **more).give(EvoPress(generations=12, offspring=6))
    assert keeps == again
    assert len(toy.asked) > 12
    assert all(toy.nbytes(asked) <= toy.goal + 1e-6 for asked in toy.asked)
    for unit in toy.units:
        assert "steps" not in more or all(keeps[n] in more["steps"][n] for n in unit)
    assert more is not DROPPED or all(a["a"] == a["c"] for a in toy.asked)


def test_strs_takes_where_it_hurts_least():
    keeps = Toy(ALIKE, 0.7, harm={"a": 0.01, "b": 5.0, "c": 9.0}).give(STRS(ratios=[0.4, 0.6, 0.8]))
    assert keeps == {"a": 0.4, "b": 0.8, "c": 0.8}


def test_components_leave_the_rest_to_the_other():
    roles = {"a": "q", "b": "up", "c": "down"}
    keeps = Toy(ALIKE, 0.7, roles=roles).give(Components(attention=0.1))
    assert keeps == {"a": 0.9, "b": pytest.approx(0.6), "c": pytest.approx(0.6)}
    assert Toy(ALIKE, 0.7, roles=roles).give(Components(skip_first=1))["a"] == 1.0
    with pytest.raises(
        ValueError, match=r"allocate\.attention=0\.9, mlp=None.* leaves 130\.0% .*; valid: at most"
    ):
        Toy(ALIKE, 0.9, roles=roles).give(Components(attention=0.9))
    with pytest.raises(ValueError, match=r"skip_first=9, skip_last=0 leaves no other layer"):
        Toy(ALIKE, 0.7, roles=roles).give(Components(skip_first=9))


BAD = [
    (Components, {"attention": 1.5}, "attention=1.5"),
    (Components, {"attention": 0.1, "mlp": 0.2}, "one of the two"),
    (Components, {"skip_last": -1}, "skip_last=-1"),
    (Greedy, {"relative": "yes"}, "relative='yes'"),
    (WeLore, {"least_cut": -1}, "least_cut=-1"),
    (WeLore, {"least_cut": 1}, "least_cut=1"),
    (OWL, {"least": 2}, "least=2"),
    (DLP, {"least": 0}, "least=0"),
    (OWL, {"lam": -0.1}, "lam=-0.1"),
    (OWL, {"threshold": 0}, "threshold=0"),
    (DLP, {"typical": "mode"}, "typical='mode'"),
    (Entropic, {"eps": 0}, "eps=0"),
    (Entropic, {"cap": 2}, "cap=2"),
    (LGreCo, {"shares": [0.5, 1.5]}, "shares="),
    (LGreCo, {"buckets": 0}, "buckets=0"),
    (ILP, {"levels": 1}, "levels=1"),
    (ILP, {"of": "biases"}, "of='biases'"),
    (ILP, {"relative": 1}, "relative=1"),
    (ILP, {"seconds": 0}, "seconds=0"),
    (STRS, {"ratios": []}, "ratios="),
    (STRS, {"samples": 0}, "samples=0"),
    (LGreCo, {"shares": 0.5}, "shares=0.5 is no list"),
    (EvoPress, {"samples": 2}, "samples=2 is no list"),
    (EvoPress, {"samples": None}, "samples=None is no list; valid: as [a, b]"),
    (EvoPress, {"offspring": 0}, "offspring=0"),
    (EvoPress, {"offspring": 1}, "survivors=[2, 1] of allocate.offspring=1"),
    (EvoPress, {"samples": [1, 2, 3], "survivors": [2, 3, 1]}, "in no stage more than before it"),
    (EvoPress, {"samples": [1, 2], "survivors": [1]}, "survivors="),
    (EvoPress, {"survivors": [4, 2]}, "the last 1"),
    (EvoPress, {"fitness": "ppl"}, "fitness='ppl'"),
    (Replay, {}, "path=None names no file"),
    (Replay, {"path": 3}, "path=3 names no file"),
    (Replay, {"path": "nowhere.json"}, "path='nowhere.json' does not exist"),
    (Replay, {"path": "conf"}, "path='conf' is a folder"),
]


@pytest.mark.parametrize(("kind", "knobs", "told"), BAD)
def test_a_bad_knob_is_one_line_that_names_it(kind, knobs, told):
    with pytest.raises(ValueError, match=r"allocate\.") as caught:
        kind(**knobs)
    assert told in str(caught.value)
    assert "valid" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_plan_is_said_so(tmp_path):
    for k, text in enumerate(("[]", "{", json.dumps({"plan": None}), json.dumps({"rooms": {}}))):
        (tmp_path / f"{k}.json").write_text(text)
        with pytest.raises(ValueError, match="holds no plan; valid"):
            Replay(str(tmp_path / f"{k}.json"))


def test_units_go_up_together():
    shapes = dict.fromkeys("abcd", (4, 4))
    rooms = {name: Room(16) for name in shapes}
    sizes = {name: [0, 32] for name in shapes}
    plan = Plan(rooms, 0.5, total=70)
    keeps = {"a": 0.2, "b": 0.2, "c": 0.7, "d": 0.7}
    made = fit(plan, shapes, keeps, sizes, [["a", "b"], ["c", "d"]]).rooms
    assert {name: room.nbytes for name, room in made.items()} == {"a": 0, "b": 0, "c": 32, "d": 32}


def test_a_plan_with_a_room_below_zero_is_refused_by_name(tmp_path):
    """Else the cell would be called unreachable, for good."""
    plan = {"rooms": {"a": [8, None], "b": [-5, None]}, "dtype": "bfloat16", "budget": 0.3, "notes": {}}
    (tmp_path / "p.json").write_text(
        json.dumps(plan | {"accounting": "bytes", "scope": "blocks", "total": 8})
    )
    with pytest.raises(ValueError, match=r"allocate\.path=.*rooms\.b is -5; valid: bytes, 0 or more"):
        Replay(path=str(tmp_path / "p.json"))
