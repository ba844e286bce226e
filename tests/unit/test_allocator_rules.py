"""Single rules of allocators, against values worked out by hand."""

import itertools
from dataclasses import dataclass, field

import pytest
import torch
from test_allocators import ALIKE
from toy_trial import Toy

from crunchmark import InputMean, InputNorm, Layer, entropic
from crunchmark.allocation import equal_shares
from crunchmark.bench import Bench
from crunchmark.calib import Calibration
from crunchmark.maker import Maker, Nothing
from crunchmark.projected import directions
from crunchmark.shared import Shared
from crunchmark.view import View
from methods.afm import AFM
from methods.allocate.dlp import DLP
from methods.allocate.evopress import EvoPress
from methods.allocate.greedy import Greedy
from methods.allocate.l_greco import LGreCo
from methods.allocate.owl import OWL
from methods.allocate.welore import WeLore
from methods.asvd import ASVD
from methods.compensate.eora import EoRA
from methods.svd import SVD
from methods.svd_llm import SVDLLM
from methods.vq import VQ

TOKENS = torch.randint(3, 64, (6, 12), generator=torch.Generator().manual_seed(2))
SHARED = Shared()


@dataclass
class Seen(Toy):
    """A toy whose layers can be looked at."""

    weights: dict = field(default_factory=dict)

    def layer(self, name):
        weight = self.weights[name]
        ones = InputNorm(torch.ones(weight.shape[1], dtype=torch.float64), 1)
        return Layer(name, weight, {InputNorm: ones})


def test_dlp_keeps_more_of_the_block_with_the_smaller_median():
    small, large = torch.full((8, 8), 1.0), torch.full((8, 8), 3.0)
    small[0], large[0] = 100.0, 0.0  # an eighth: means say the opposite
    toy = Seen({"a": (8, 8), "b": (8, 8)}, 0.5, weights={"a": small, "b": large})
    assert toy.give(DLP(alpha=0.15)) == {"a": pytest.approx(0.65), "b": pytest.approx(0.35)}
    assert toy.give(DLP(alpha=0.15, typical="mean"))["a"] == pytest.approx(0.35)


def test_owl_counts_what_is_above_a_multiple_of_the_mean():
    flat, spiked = torch.ones(10, 10), torch.ones(10, 10)
    flat[0, 0], spiked[0, :5] = 4.9, 20.0  # means 1.039 and 1.95: above five times the mean are 0 and 5
    toy = Seen({"a": (10, 10), "b": (10, 10)}, 0.5, weights={"a": flat, "b": spiked})
    plan = OWL(lam=0.1).allocate(toy, toy.layers, int(toy.goal))
    assert plan.notes["outliers"] == [0.0, 0.05]
    assert plan.keeps == {"a": pytest.approx(0.4), "b": pytest.approx(0.6)}
    assert OWL(threshold=4.0).allocate(toy, toy.layers, int(toy.goal)).notes["outliers"] == [0.01, 0.05]


def test_greedy_weighs_a_direction_by_what_it_costs():
    shapes = {"thin": (4, 4), "wide": (4, 96)}  # 8 and 100 numbers a direction
    energies = {
        "thin": torch.tensor([5.0, 0.1, 0.1, 0.1]).double(),
        "wide": torch.tensor([9.0, 4.0, 0.1, 0.1]).double(),
    }
    toy = Toy(shapes, 108.5 / 400, energies=energies)  # one of each, or one of wide
    keeps = toy.give(Greedy(relative=False))
    assert keeps == {"thin": pytest.approx(8 / 16), "wide": pytest.approx(100 / 384)}
    less = Toy(shapes, 100.5 / 400, energies=energies).give(Greedy(relative=False))
    assert less == {"thin": pytest.approx(8 / 16), "wide": 0.0}  # energy alone would buy the wide one's first


@pytest.mark.parametrize("allocator", [Greedy(), WeLore()], ids=["greedy", "welore"])
def test_ranks_are_nested_over_budgets(tiny, allocator):
    view = View(tiny("llama_gqa"))
    before = None
    for budget in (0.8, 0.6, 0.4, 0.2):
        plan = equal_shares(view, budget, "nominal", "blocks", torch.bfloat16)
        maker = Maker(SVD(), Nothing(), Calibration(TOKENS), "llama_gqa", SHARED)
        asked = {}
        with Bench(maker, view, plan) as trial:
            trial.fit = lambda keeps, asked=asked, **_: asked.update(keeps)
            allocator.allocate(trial, view.layers(), plan.total)
        assert before is None or all(asked[name] >= share for name, share in before.items())
        before = asked
    assert len(before) == len(view.layers())


def test_welore_ranks_do_not_see_the_scale_of_a_weight(tiny):
    plain, scaled = View(tiny("llama_gqa")), View(tiny("llama_gqa"))
    scaled.sites(0)[0].module.weight.data *= 64
    found = []
    for name, view in (("plain", plain), ("scaled", scaled)):
        plan = equal_shares(view, 0.5, "bytes", "blocks", torch.bfloat16)
        with Bench(Maker(SVD(), Nothing(), Calibration(TOKENS), name, Shared()), view, plan) as trial:
            found.append(WeLore().allocate(trial, view.layers(), plan.total).rooms)
    assert found[0] == found[1]


def table(name):
    """Harms, alike or not, at shares that are on the list and off it."""
    return {"alike": [1.0, 1.0, 1.0], "near": [1.0, 1.02, 0.98], "unlike": [1.0, 4.0, 9.0]}[name]


@pytest.mark.parametrize("share", [0.15, 0.25, 0.5, 0.85])
@pytest.mark.parametrize("harms", ["alike", "near", "unlike"])
def test_l_greco_is_no_worse_than_equal_shares(harms, share):
    toy = Toy(ALIKE, share, harm=dict(zip("abc", table(harms), strict=True)))
    keeps = toy.give(LGreCo())
    assert toy.nbytes(keeps) <= toy.goal + 1e-6
    equal = toy.loss(dict.fromkeys("abc", share), ())
    assert toy.loss(keeps, ()) <= equal + 1e-12
    if harms == "unlike":
        assert toy.loss(keeps, ()) < equal


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_l_greco_is_no_worse_than_greedy_at_its_levels(share):
    """Errors are those of the spectra, and every rank is a level of the programme."""
    shapes = dict.fromkeys("abc", (16, 16))
    energies = {n: (torch.arange(16, 0, -1) ** p).double() for n, p in zip("abc", (1, 2, 4), strict=True)}

    @dataclass
    class Spectral(Toy):
        def error(self, name, keep, of="outputs"):
            rank = int(keep * 256 / 32 + 1e-9)
            return float(energies[name][rank:].sum() / energies[name].sum()) if keep < 1 else 0.0

    ranks = [r * 32 / 256 for r in range(1, 8)]
    toy = Spectral(shapes, share, energies=energies, steps={name: [*ranks, 1.0] for name in "abc"})
    greedy = Toy(shapes, share, energies=energies).give(Greedy())
    assert all(keep in (*ranks, 1.0) for keep in greedy.values())
    assert toy.loss(toy.give(LGreCo(shares=ranks)), ()) <= toy.loss(greedy, ()) + 1e-12


@pytest.mark.parametrize("buckets", [5, 7, 23, 101])
def test_l_greco_is_within_the_budget_however_coarse_its_buckets(buckets):
    toy = Toy(ALIKE, 0.47, harm={"a": 1.0, "b": 4.0, "c": 9.0})
    keeps = toy.give(LGreCo(buckets=buckets))
    assert toy.nbytes(keeps) <= toy.goal
    assert toy.loss(keeps, ()) <= toy.loss(dict.fromkeys("abc", 0.47), ())


def tails(energies, shapes, keeps):
    """Sum of relative errors, and how many numbers the factors have, with as many whole ranks as are kept."""
    ranks = {n: int(keeps[n] * o * i / (o + i) + 1e-9) for n, (o, i) in shapes.items()}
    errors = [float(e[ranks[n] :].sum() / e.sum()) for n, e in energies.items()]
    return sum(errors), sum(ranks[n] * sum(shapes[n]) for n in shapes)


@pytest.mark.parametrize(
    "shapes", [ALIKE, {"a": (20, 30), "b": (40, 10), "c": (30, 30)}], ids=["alike", "not"]
)
def test_greedy_is_no_worse_than_equal_shares_at_what_it_spends(shapes):
    better = 0
    for seed in range(20):
        dice = torch.Generator().manual_seed(seed)
        energies = {n: torch.rand(8, generator=dice).double() ** 4 for n in shapes}
        energies = {n: e.sort(descending=True).values for n, e in energies.items()}
        for share in (0.2, 0.4, 0.6):
            toy = Toy(shapes, share, energies=energies)
            found = tails(energies, shapes, toy.give(Greedy()))
            equal = tails(energies, shapes, dict.fromkeys(shapes, share))
            if shapes is ALIKE or equal[1] <= found[1]:  # else equal shares use the budget up further
                assert found[0] <= equal[0] + 1e-12
                better += found[0] < equal[0] - 1e-6
    assert better > 20


class Hidden(Toy):
    """Nothing helps but a and b above half, both of them."""

    def loss(self, keeps, samples, kind="kl"):
        self.asked.append(dict(keeps))
        return 1 + sum((k - 0.5) ** 2 for k in keeps.values()) if min(keeps["a"], keeps["b"]) <= 0.5 else 0.0


def test_evopress_finds_what_takes_two_flips_at_once():
    shapes, search = dict.fromkeys("abcd", (8, 8)), {"samples": [1], "survivors": [1], "steps": 2}
    equal = dict.fromkeys("abcd", 0.5)
    assert Hidden(shapes, 0.5).give(EvoPress(generations=10, flips=1, **search)) == equal
    found = Hidden(shapes, 0.5).give(EvoPress(generations=10, flips=3, **search))
    assert min(found["a"], found["b"]) > 0.5


@pytest.mark.parametrize("stages", [{"samples": [1], "survivors": [1]}, {}], ids=["one", "two"])
def test_evopress_never_leaves_a_parent_for_a_worse_one(stages):
    """Equal shares are the optimum of equal harms."""
    toy = Toy(ALIKE, 0.5, harm=dict.fromkeys("abc", 1.0))
    assert toy.give(EvoPress(generations=3, offspring=4, **stages)) == dict.fromkeys("abc", 0.5)
    assert len(toy.asked) > 12


@pytest.mark.parametrize("scores", [[0.5, 0.4, 0.9, 0.3], [0.1, 0.1, 0.8, 0.9], [3.0, 2.0, 1.0, 0.0]])
@pytest.mark.parametrize("eps", [1e-6, 1e-4, 0.01, 0.1])
@pytest.mark.parametrize("mean", [0.1, 0.5, 0.75])
def test_entropic_keeps_its_mean_where_pulls_underflow(scores, eps, mean):
    removed = entropic(scores, mean, eps, 0.8)
    assert sum(removed) / 4 == pytest.approx(mean, abs=1e-9)
    assert all(0 <= share <= 0.8 + 1e-9 for share in removed)
    order = sorted(range(4), key=scores.__getitem__)
    assert all(removed[a] >= removed[b] - 1e-12 for a, b in itertools.pairwise(order))


CASES = [(SVD(), "identity"), (SVDLLM(), "gram"), (AFM(), "covariance"), (VQ(), "identity")]


@pytest.mark.parametrize("repairer", [Nothing(), EoRA()], ids=["none", "eora"])
@pytest.mark.parametrize(("method", "metric"), CASES, ids=lambda case: type(case).__name__)
def test_the_spectrum_is_the_methods_whatever_repairs_it(tiny, method, metric, repairer):
    view = View(tiny("llama_gqa"))
    plan = equal_shares(view, 0.4, "bytes", "blocks", torch.bfloat16)
    maker = Maker(method, repairer, Calibration(TOKENS), "llama_gqa", SHARED)
    with Bench(Maker(AFM(), EoRA(), Calibration(TOKENS), "llama_gqa", SHARED), view, plan) as other:
        name = next(iter(view.layers()))
        want = directions(other.layer(name), metric).energy
    with Bench(maker, view, plan) as trial:
        assert torch.equal(trial.spectrum(name), want)


def test_asvd_is_taken_by_its_own_directions(tiny):
    view = View(tiny("llama_gqa"))
    plan = equal_shares(view, 0.4, "bytes", "blocks", torch.bfloat16)
    with Bench(Maker(ASVD(), Nothing(), Calibration(TOKENS), "asvd", SHARED), view, plan) as trial:
        layer = trial.layer("model.layers.0.self_attn.q_proj")
        scale = layer[InputMean].absolute.double().sqrt()
        want = torch.linalg.svdvals(layer.weight.double() * scale).square()
        torch.testing.assert_close(trial.spectrum(layer.name), want, rtol=1e-4, atol=0)


def test_the_loss_is_the_divergence_from_the_dense_distribution(tiny):
    view = View(tiny("llama_gqa"))
    plan = equal_shares(view, 0.4, "bytes", "blocks", torch.bfloat16)
    with torch.no_grad():
        said = view.model(TOKENS[:2, :-1]).logits.double().log_softmax(-1)
    with Bench(Maker(SVD(), Nothing(), Calibration(TOKENS), "llama_gqa", SHARED), view, plan) as trial:
        found = trial.loss(dict.fromkeys(plan.rooms, 0.2), [0, 1])
        with torch.no_grad():
            now = view.model(TOKENS[:2, :-1]).logits.double().log_softmax(-1)
    there = float((said.exp() * (said - now)).sum(-1).mean())
    back = float((now.exp() * (now - said)).sum(-1).mean())
    assert abs(there - back) > 1e-3 * there  # the direction shows
    assert found == pytest.approx(there, rel=1e-4)
