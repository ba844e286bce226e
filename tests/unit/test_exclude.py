"""Layers of excluded roles stay dense, the others pay, and the total stays the total."""

from itertools import pairwise

import pytest
import torch

from crunchmark.allocation import Uniform, equal_shares
from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.calib import Calibration
from crunchmark.compress import allocate, compress
from crunchmark.interface import Allocator
from crunchmark.terms import Dense
from crunchmark.view import View
from methods.compactifai import CompactifAI

NONE = Calibration(torch.empty(0, 0, dtype=torch.int64), "dense", batch=1)


class Rising(Allocator):
    """Later layers keep more."""

    def allocate(self, trial, layers, total):
        return trial.fit({name: 0.2 + 0.05 * k for k, name in enumerate(layers)})


def planned(model, budget, accounting="bytes", allocator=None, exclude=("down",)):
    view, method = View(model), CompactifAI(exclude=exclude)
    plan = equal_shares(view, budget, accounting, "blocks", torch.bfloat16)
    plan = allocate(allocator or Uniform(), method, view, plan, NONE, "m")
    return view, method, plan


def downs(view):
    return {site.name for site in view.all_sites() if site.role == "down"}


@pytest.mark.parametrize("allocator", [Uniform(), Rising()], ids=["uniform", "rising"])
@pytest.mark.parametrize("accounting", ["bytes", "nominal"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_others_pay(tiny, family, accounting, allocator):
    view, method, plan = planned(tiny(family), 0.4, accounting, allocator)
    shapes = view.layers()
    terms = compress(method, view, plan, NONE, "m")
    dense = {name for name, term in terms.items() if isinstance(term, Dense)}
    assert downs(view) <= dense
    assert len(dense) < len(terms)
    whole = sum(map(dense_bytes, shapes.values()))
    if accounting == "bytes":
        spent = sum(term.nbytes() for term in terms.values())
        assert spent == sum(plan.rooms[n].nbytes for n in terms) <= plan.total == int(0.6 * whole)
        steps = [method.sizes(s, plan.rooms[n]) for n, s in shapes.items() if n not in dense]
        assert plan.total - spent < min(sizes[1] - sizes[0] for sizes in steps)
    else:
        kept = sum(plan.rooms[n].nominal * dense_bytes(s) for n, s in shapes.items())
        steps = [b - a for s in shapes.values() for a, b in pairwise(method.sizes(s, Room(0, 0.6)))]
        assert 0.6 * whole - max(steps) < kept <= 0.6 * whole * (1 + 1e-12)


def test_equal_shares_for_all_that_are_not_excluded(tiny):
    view, _, plan = planned(tiny("llama"), 0.4, "nominal")
    shares = {name: room.nominal for name, room in plan.rooms.items()}
    assert {shares[name] for name in downs(view)} == {1.0}
    assert len({share for name, share in shares.items() if name not in downs(view)}) == 1
    assert set(planned(tiny("llama"), 0.4, "nominal", exclude=())[2].rooms.values()) != set(
        plan.rooms.values()
    )


def test_more_excluded_than_the_budget_leaves_is_out_of_reach_and_the_nearest_is_not(tiny):
    for exclude in (["down"], ["q", "k", "v", "o", "gate", "up", "down"]):
        with pytest.raises(Unreachable) as caught:
            planned(tiny("llama"), 0.97, exclude=exclude)
        nearest = caught.value.nearest
        assert (nearest > 0.5) == (exclude == ["down"])
        view, method, plan = planned(tiny("llama"), nearest, exclude=exclude)
        terms = compress(method, view, plan, NONE, "m")
        assert all(isinstance(terms[name], Dense) for name in downs(view))
