"""What can not be reached says what can: the nearest budget, the rank of a repair, the length of a run."""

import json

import pytest
import torch

from crunchmark.allocation import Uniform, equal_shares
from crunchmark.budget import Unreachable, dense_bytes
from crunchmark.calib import Calibration
from crunchmark.compress import allocate, compress
from crunchmark.maker import Maker, Nothing
from crunchmark.shared import Shared
from crunchmark.view import View
from methods.allocate.components import Components
from methods.allocate.evopress import EvoPress
from methods.allocate.greedy import Greedy
from methods.allocate.ilp import ILP
from methods.allocate.l_greco import LGreCo
from methods.allocate.owl import OWL
from methods.allocate.replay import Replay
from methods.allocate.strs import STRS
from methods.compensate.eora import EoRA
from methods.flap import FLAP
from methods.lr2vq import LR2VQ
from methods.magnitude import Magnitude
from methods.rtn import RTN
from methods.shortgpt import ShortGPT
from methods.sparsegpt import SparseGPT
from methods.svd import SVD
from methods.vq import VQ
from methods.wanda import Wanda
from methods.wanda_sp import WandaSP

TOKENS = torch.randint(3, 64, (6, 12), generator=torch.Generator().manual_seed(2))
CALIB = Calibration(TOKENS, batch=3)
SHARED = Shared()
UNEQUAL = [
    OWL(),
    Greedy(),
    LGreCo(buckets=500),
    ILP(levels=8),
    Components(skip_first=1),
    Components(attention=0.2),
    EvoPress(generations=1, offspring=2, samples=[1], survivors=[1]),
]
kinds = pytest.mark.parametrize("kind", [Wanda, SVD, VQ, RTN])


def run(tiny, method, budget, allocator=None, repairer=None, accounting="bytes", scope="blocks"):
    view = View(tiny("llama_gqa"))
    plan = equal_shares(view, budget, accounting, scope, torch.bfloat16)
    given = (CALIB, "llama_gqa", SHARED, repairer or Nothing())
    plan = allocate(allocator or Uniform(), method, view, plan, *given)
    terms = compress(method, view, plan, *given)
    assert accounting == "nominal" or sum(term.nbytes() for term in terms.values()) <= plan.total
    return plan, terms


def out_of_reach(*args, **kwargs):
    with pytest.raises(Unreachable) as caught:
        run(*args, **kwargs)
    return caught.value


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("allocator", UNEQUAL, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("repairer", [Nothing(), pytest.param(EoRA(), marks=pytest.mark.slow)])
def test_the_nearest_budget_of_an_unequal_plan_is_reached_and_the_last(tiny, kind, allocator, repairer):
    nearest = out_of_reach(tiny, kind(), 0.99, allocator, repairer).nearest
    assert 0.1 < nearest < 0.99
    run(tiny, kind(), nearest, allocator, repairer)
    out_of_reach(tiny, kind(), nearest + 0.01, allocator, repairer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "allocator", [OWL(), Greedy(), Components(attention=0.2)], ids=lambda a: type(a).__name__
)
@pytest.mark.parametrize(
    "method",
    [ShortGPT(), ShortGPT(unit="branch"), WandaSP(), FLAP(structure="UL-UM")],
    ids=["block", "branch", "wanda_sp", "flap"],
)
@pytest.mark.parametrize("accounting", ["bytes", "nominal"])
@pytest.mark.parametrize("scope", ["blocks", "model"])
def test_the_nearest_budget_of_a_whole_model_method_is_reached_and_the_last(
    tiny, method, allocator, accounting, scope
):
    asked = {"allocator": allocator, "accounting": accounting, "scope": scope}
    nearest = out_of_reach(tiny, method, 0.99, **asked).nearest
    assert 0.1 < nearest < 0.99
    run(tiny, method, nearest, **asked)
    assert out_of_reach(tiny, method, nearest + 0.01, **asked).nearest == pytest.approx(nearest, abs=1.5e-4)


@pytest.mark.parametrize("allocator", [Greedy(), OWL()], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("unit", ["block", "branch"])
def test_one_unit_stays_when_no_plan_leaves_a_room_for_any(tiny, allocator, unit):
    def left(budget):
        view = View(tiny("llama_gqa", num_hidden_layers=4))
        plan = equal_shares(view, budget, "bytes", "blocks", torch.bfloat16)
        plan = allocate(allocator, ShortGPT(unit=unit), view, plan, CALIB, "four", SHARED)
        compress(ShortGPT(unit=unit), view, plan, CALIB, "four", SHARED)
        assert 0 < view.scope_bytes("blocks") <= plan.total
        return len(view.blocks)

    with pytest.raises(Unreachable) as caught:
        left(0.99)
    assert 0.7 < caught.value.nearest < 0.99
    assert left(caught.value.nearest) == 1


def test_blocks_that_stay_dense_stay_so_down_to_the_nearest_budget(tiny):
    allocator = Components(skip_first=1)
    nearest = out_of_reach(tiny, SVD(), 0.7, allocator).nearest
    plan, _ = run(tiny, SVD(), nearest, allocator)
    shapes = plan.shapes
    first = [n for n in plan.rooms if ".0." in n]
    assert len(first) == 7
    assert all(plan.rooms[n].nbytes == 2 * shapes[n][0] * shapes[n][1] for n in first)


@kinds
def test_a_rank_that_no_budget_holds_names_one_that_some_do(tiny, kind):
    answer = out_of_reach(tiny, kind(), 0.5, repairer=EoRA(rank=999))
    assert answer.nearest == 0
    told = str(answer).partition("no budget is within reach; valid: compensate.rank up to ")[2]
    assert int(told) > 1
    view = View(tiny("llama_gqa"))
    maker = Maker(kind(), EoRA(rank=int(told)), CALIB, "llama_gqa", SHARED)
    room = equal_shares(view, 0.5, "bytes", "blocks", torch.bfloat16).rooms["model.layers.0.self_attn.k_proj"]
    spare = [2 * a * b - maker.needs_of((a, b), room) for a, b in view.layers().values()]
    assert min(spare) > 0  # each layer can hold it, and some of them no more
    more = Maker(kind(), EoRA(rank=int(told) + 1), CALIB, "llama_gqa", SHARED)
    assert min(2 * a * b - more.needs_of((a, b), room) for a, b in view.layers().values()) == 0


def test_a_share_that_leaves_too_little_names_a_budget_below_what_was_asked(tiny):
    """A larger room can hold one rank more of the branch and leave less for the term."""
    assert "valid: a smaller compensate.share" in str(
        out_of_reach(tiny, RTN(), 0.5, repairer=EoRA(share=0.95))
    )
    for method, share, budget in ((Wanda(), 0.95, 0.5), (VQ(), 0.3, 0.9)):
        answer = out_of_reach(tiny, method, budget, repairer=EoRA(share=share))
        assert answer.nearest < budget
        if answer.nearest:
            run(tiny, method, answer.nearest, repairer=EoRA(share=share))


@pytest.mark.parametrize("kind", [VQ, LR2VQ])
def test_a_length_is_held_against_all_layers_before_any_is_compressed(tiny, kind, monkeypatch):
    monkeypatch.setattr(kind, "compress", lambda *_: pytest.fail("a layer was compressed"))
    told = r"method\.length=32 does not divide in_features=48 of model\.layers\.0\.mlp\.down_proj; "
    with pytest.raises(ValueError, match=rf"{told}valid: null or 1, 2, 4, 8, 16$"):
        run(tiny, kind(length=32), 0.7)
    with pytest.raises(ValueError, match=r"method\.length=5 does not .*; valid: null or 1, 2, 4, 8, 16$"):
        run(tiny, kind(length=5), 0.7)
    with pytest.raises(ValueError, match=r"method\.bits=8.*want more runs than .*k_proj has \(16, 32\)"):
        run(tiny, kind(bits=8, length=4), 0.7)


@pytest.mark.parametrize("kind", [Wanda, Magnitude, SparseGPT])
def test_so_is_the_run_of_a_pattern(tiny, kind, monkeypatch):
    monkeypatch.setattr(kind, "compress", lambda *_: pytest.fail("a layer was compressed"))
    told = r"method\.run=32 does not divide in_features=48 of model\.layers\.0\.mlp\.down_proj; "
    with pytest.raises(ValueError, match=rf"{told}valid: a divisor from 2 to \d+: 2, 4, 8, 16$"):
        run(tiny, kind(run=32), 0.4)


def test_a_plan_is_used_again_where_equal_shares_are_out_of_reach(tiny, tmp_path):
    nearest = out_of_reach(tiny, SVD(), 0.99, Greedy()).nearest
    out_of_reach(tiny, SVD(), nearest)
    plan, _ = run(tiny, SVD(), nearest, Greedy())
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    again, _ = run(tiny, SVD(), nearest, Replay(str(tmp_path / "plan.json")))
    assert again.rooms == plan.rooms


@pytest.mark.parametrize(
    "allocator", [STRS(ratios=[0.5, 0.8], samples=2), LGreCo(shares=[0.5, 0.8]), ILP(levels=2)]
)
def test_below_all_shares_of_a_list_the_share_of_the_budget_is_tried(tiny, allocator):
    view = View(tiny("llama_gqa"))
    plan = equal_shares(view, 0.7, "bytes", "blocks", torch.bfloat16)
    found = allocate(allocator, Wanda(), view, plan, CALIB, "llama_gqa", Shared())
    keeps = [found.rooms[n].nbytes / dense_bytes(s) for n, s in view.layers().items()]
    assert sum(r.nbytes for r in found.rooms.values()) <= plan.total
    assert max(keeps) < 0.45, "nobody is at a listed share: equal shares are the only plan"


def test_l_greco_where_nothing_is_left_for_the_blocks(tiny):
    """With scope=model the rest of the model can be more than the budget leaves."""
    for budget in (0.785, 0.9):
        view = View(tiny("llama_gqa"))
        plan = equal_shares(view, budget, "bytes", "model", torch.bfloat16)
        with pytest.raises(Unreachable) as caught:
            allocate(LGreCo(buckets=500), SVD(), view, plan, CALIB, "llama_gqa", SHARED)
        assert 0 < caught.value.nearest < budget


@pytest.mark.parametrize("kind", [VQ, LR2VQ])
def test_codebooks_end_within_a_step_of_the_budget(tiny, kind):
    """What whole settings leave goes to further layers."""
    plan, terms = run(tiny, kind(), 0.7)
    shapes, room = View(tiny("llama_gqa")).layers(), next(iter(plan.rooms.values()))
    steps = [
        larger - term.nbytes()
        for name, term in terms.items()
        for larger in [s for s in kind().sizes(shapes[name], room) if s > term.nbytes()][:1]
    ]
    assert plan.total - sum(term.nbytes() for term in terms.values()) < min(steps)
