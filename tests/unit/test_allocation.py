"""Any shares become a plan that meets the total to within one step; what can not be met says what can."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crunchmark.allocation import fit
from crunchmark.budget import Plan, Room, Unreachable, dense_bytes
from crunchmark.maker import Nothing, around
from crunchmark.terms import LowRank
from methods.afm import AFM
from methods.compensate.eora import EoRA
from methods.lord import LoRD
from methods.welore import WeLore

REPAIRS = st.sampled_from([Nothing(), EoRA(), EoRA(share=0.3), EoRA(rank=2)])
METHODS = st.sampled_from([AFM(), LoRD(align=4), WeLore(min_ratio=0.4999), WeLore()])
sides = st.integers(8, 96)


def sizes_of(method, repairer, shape):
    """As a trial gives them: bytes with the repair, the last one dense."""
    full, room = dense_bytes(shape), Room(0)
    found = (around(repairer, size, shape, room) for size in method.sizes(shape, room))
    return [*(size for size in found if size < full), full]


def plan_of(shapes, budget, nominal=None):
    dense = {name: dense_bytes(shape) for name, shape in shapes.items()}
    rooms = {name: Room(int((1 - budget) * size), nominal) for name, size in dense.items()}
    return Plan(rooms, budget, "bytes" if nominal is None else "nominal", "blocks",
                int((1 - budget) * sum(dense.values())))  # fmt: skip


@st.composite
def cases(draw):
    shapes = {f"l{i}": (draw(sides), draw(sides)) for i in range(draw(st.integers(1, 8)))}
    keeps = {name: draw(st.floats(-0.5, 1.5)) for name in shapes}
    method, repairer = draw(METHODS), draw(REPAIRS)
    sizes = {name: sizes_of(method, repairer, shape) for name, shape in shapes.items()}
    return shapes, keeps, sizes, draw(st.floats(0.01, 0.9))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_any_shares_meet_the_total_to_within_one_step(case):
    shapes, keeps, sizes, budget = case
    plan = plan_of(shapes, budget)
    assume(sum(options[0] for options in sizes.values()) <= plan.total)
    if len(set(keeps.values())) == 1:  # equal shares stay equal, so that each has to be within reach
        assume(all(sizes[name][0] <= plan.rooms[name].nbytes for name in shapes))
    rooms = {name: room.nbytes for name, room in fit(plan, shapes, keeps, sizes).rooms.items()}
    left = plan.total - sum(rooms.values())
    assert left >= 0
    assert all(rooms[name] in sizes[name] for name in shapes)
    able = (
        {n: options[:-1] or options for n, options in sizes.items()}
        if len(set(keeps.values())) == 1
        else sizes
    )
    steps = [able[n][able[n].index(rooms[n]) + 1] - rooms[n] for n in shapes if rooms[n] < able[n][-1]]
    assert left < min(steps, default=plan.total + 1)  # equal shares leave no layer dense


@settings(max_examples=50, deadline=None)
@given(cases(), st.floats(0.05, 0.99))
def test_what_can_not_be_met_names_what_can(case, part):
    shapes, keeps, sizes, _ = case
    assume(len(set(keeps.values())) > 1)
    needs = sum(options[0] for options in sizes.values())
    plan = plan_of(shapes, 1 - part * needs / sum(dense_bytes(shape) for shape in shapes.values()))
    with pytest.raises(Unreachable) as caught:
        fit(plan, shapes, keeps, sizes)
    assert caught.value.needs == needs
    near = plan_of(shapes, caught.value.nearest)
    assert sum(r.nbytes for r in fit(near, shapes, keeps, sizes).rooms.values()) <= near.total


@settings(max_examples=60, deadline=None)
@given(sides, sides, REPAIRS, st.floats(0.05, 0.95))
def test_a_layer_fills_the_size_it_is_given(out, wide, repairer, share):
    """Base rank and branch together are the room, to the byte."""
    options = sizes_of(AFM(), repairer, (out, wide))[:-1]
    assume(options)
    room = Room(options[int(share * len(options))])
    taken = repairer.reserve((out, wide), room)
    rank = LowRank.fits((out, wide), room.less(taken), "layer", extra=out)
    assert 2 * (rank * (out + wide) + out) + taken == room.nbytes


def test_layers_that_stay_dense_are_made_up_for():
    shapes = {"attn": (32, 32), "mlp": (96, 32)}
    full = {name: dense_bytes(shape) for name, shape in shapes.items()}
    sizes = {"attn": [full["attn"]], "mlp": sizes_of(AFM(), Nothing(), shapes["mlp"])}
    plan = fit(plan_of(shapes, 0.5), shapes, dict.fromkeys(shapes, 0.5), sizes)
    assert plan.rooms["attn"].nbytes == full["attn"]
    assert 0 <= plan.total - sum(r.nbytes for r in plan.rooms.values()) < 2 * (96 + 32)
    nominal = fit(plan_of(shapes, 0.5, 0.5), shapes, dict.fromkeys(shapes, 0.5), sizes)
    assert nominal.rooms["attn"].nominal == 1
    assert nominal.rooms["mlp"].nominal == pytest.approx((0.5 * 4 - 1) / 3)
    with pytest.raises(Unreachable, match=r"the nearest reachable budget is 0\.69") as caught:
        fit(plan_of(shapes, 0.9), shapes, dict.fromkeys(shapes, 0.1), sizes)
    near = caught.value.nearest
    assert fit(plan_of(shapes, near), shapes, dict.fromkeys(shapes, 1 - near), sizes).rooms["mlp"].nbytes > 0


@pytest.mark.parametrize(("roles", "dense"), [("all", ""), ("mlp", "q k v qkv o"), ("attn", "gate up down")])
def test_which_roles_lord_leaves_dense(roles, dense):
    left = [r for r in ("q", "k", "v", "qkv", "o", "gate", "up", "down") if LoRD(roles=roles).leaves(r)]
    assert left == dense.split()
    with pytest.raises(ValueError, match=r"method\.roles='some' is unknown; valid: all, mlp, attn"):
        LoRD(roles="some")


@settings(max_examples=50, deadline=None)
@given(sides, sides, st.floats(0, 0.99), st.integers(1, 200))
def test_welore_factorises_only_what_loses_enough_rank(out, wide, min_ratio, nbytes):
    method, full = WeLore(min_ratio=min_ratio), min(out, wide)
    most = method.most((out, wide))
    assert most == 1 or (full - most) / full > min_ratio
    assert most == full - 1 or (full - most - 1) / full <= min_ratio or most + 1 > full
    ranks = [size / (2 * (out + wide)) for size in method.sizes((out, wide), Room(nbytes))[:-1]]
    assert ranks == list(range(1, len(ranks) + 1))
    assert max(ranks, default=1) <= most
    for bad in (-0.1, 1, "a"):
        with pytest.raises(ValueError, match=r"method\.min_ratio"):
            WeLore(min_ratio=bad)


def test_room_dtypes_count():
    assert AFM().sizes((8, 8), Room(0, dtype=torch.float32))[0] == 4 * (16 + 8)
