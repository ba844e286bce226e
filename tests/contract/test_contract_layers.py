"""What every layer method promises of single layers: errors fall with room, no row is favoured."""

from itertools import pairwise

import pytest
import torch
from contract_cases import (
    FEW,
    LAYERWISE,
    SOLVED,
    STORED,
    budgets,
    kinds,
    layers,
    rounds_what_is_kept,
)

from crunchmark.budget import Room, dense_bytes
from crunchmark.fisher import Fisher
from crunchmark.linalg import calibrated_error
from crunchmark.stats import Gram


def compressed(case, layer, keep, nominal=False):
    """The layer's term when it keeps that share of its bytes, or in nominal accounting."""
    room = Room(int(keep * dense_bytes(layer.shape)), keep if nominal else None, STORED)
    return case.make().compress(layer, room)


@pytest.mark.parametrize("case", [c for c in FEW if c in LAYERWISE], ids=str)
def test_error_falls_as_the_room_grows(case):
    mean = []
    for budget in budgets(case):
        errors = [
            calibrated_error(x.weight, compressed(case, x, 1 - budget).dense(), x[Gram].value)
            for x in layers(case.family)
        ]
        mean.append(sum(errors) / len(errors))
    assert all(a <= b * (1 + 1e-6) for a, b in pairwise(mean)), mean
    assert mean[0] < 0.8 * mean[-1]


ROWWISE = {"wanda", "rtn", "gptq", "hqq", "wanda_gptq"}  # every row is decided on its own


def is_rowwise(case):
    return case.method in ROWWISE or any("run" in knob for knob, _ in case.knobs)  # N:M ranks inside a row


def half(case):
    """A share at which half is gone."""
    return 0.125 if rounds_what_is_kept(case) else 0.5


def test_rowwise_cases():
    assert (
        sum(map(is_rowwise, LAYERWISE)) == len(ROWWISE) * 12 + 11
    )  # on every family; their variants, and N:M


def rows_of(layer, rows):
    """A layer of these rows alone: the same inputs, and these rows' squared gradients."""
    stats = {**layer.stats, Fisher: Fisher(layer[Fisher].mean[rows])}
    return type(layer)(layer.name, layer.weight[rows].clone(), stats)


@pytest.mark.parametrize("case", [c for c in LAYERWISE if is_rowwise(c)], ids=str)
def test_rows_are_independent(case):
    """Rows in another order, or some of them alone, come out as they did together."""
    for layer in layers(case.family):
        want = compressed(case, layer, half(case), nominal=True).dense()
        order = torch.randperm(len(want), generator=torch.Generator().manual_seed(3))
        for rows in (order, order[: len(order) // 3]):
            part = rows_of(layer, rows)
            got = compressed(case, part, half(case), nominal=True).dense()
            torch.testing.assert_close(got, want[rows], rtol=0, atol=0)


ORDERED = {"compactifai", "spqr", "lq_lora"}  # where a row is counts: neighbours share a tensor, or scales
FREE = [c for c in FEW if c in LAYERWISE and not is_rowwise(c) and c.method not in ORDERED]


@pytest.mark.parametrize("case", FREE, ids=str)
def test_rows_are_exchangeable(case):
    """Rows compete, but none is favoured: another order gives the same weight in that order."""
    alone = []
    for layer in layers(case.family):
        want = compressed(case, layer, half(case), nominal=True).dense()
        order = torch.randperm(len(want), generator=torch.Generator().manual_seed(3))
        part = rows_of(layer, order)
        got = compressed(case, part, half(case), nominal=True).dense()
        if kinds(case) & SOLVED:  # another order of sums, then 16-bit rounding
            assert float((got - want[order]).norm() / want.norm()) < 0.01
        else:
            torch.testing.assert_close(got, want[order], rtol=0, atol=0)
        some = rows_of(layer, torch.arange(7))
        alone.append(torch.equal(compressed(case, some, half(case), nominal=True).dense(), want[:7]))
    # where its rows do not compete, it is to be named in ROWWISE above, and more is promised of it
    assert not all(alone), f"{case.method} decides every row on its own: add it to ROWWISE"
