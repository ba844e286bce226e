"""Pieces of ours give the kept numbers, and those of the released code within each row's tolerance."""

import pytest
import torch

from benchmarks.peers.pieces import PIECES
from tests.golden import parity, pieces

ROWS = pieces.golden()
COUNTS = {
    "squeezellm: k-means of rows": 14,
    "lq_lora: NormalFloat": 4,
    "lq_lora: bits per weight": 1,
    "lq_lora: Q + L": 18,
    "lq_lora: integer programme": 4,
    "gptq: columns": 32,
}
NEAR = {
    "lq_lora: Q + L": 1e-2
}  # its last digits decide when it stops (0.9 % measured); others repeat to 1e-4


def test_the_number_of_rows():
    kinds = [row["piece"] for row in ROWS]
    assert {kind: kinds.count(kind) for kind in kinds} == COUNTS
    assert set(COUNTS) == set(PIECES) == set(pieces.OURS)
    assert len({(row["piece"], row["setting"]) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['piece']}-{row['setting']}")
def test_rows_are_whole_and_agree(row):
    assert parity.faults(row) == []


def test_what_was_said_of_the_rows_holds():
    """Where a cause was taken away nothing is left: the same weights, or the same number."""
    alike = [r for r in ROWS if r["peer"].get("half") or r["piece"] == "lq_lora: NormalFloat"]
    assert len(alike) == 20
    assert all(row["same"] == 1 for row in alike)
    exact = [r for r in ROWS if "turns" in r["peer"] or r["of"].get("offsets") is False]
    assert len(exact) == 7
    assert all(abs(row["difference"]) < 1e-5 for row in exact)
    begun = [r["difference"] for r in ROWS if r["peer"].get("begin")]
    assert len(begun) == 6
    assert all(-1e-6 < difference < 0.003 for difference in begun)


def test_the_readme_holds_the_table():
    assert pieces.markdown(ROWS) in (pieces.HERE / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("piece", COUNTS)
def test_ours_is_the_golden_number(piece):
    near, found = NEAR.get(piece, 1e-4), {}
    for row in (row for row in ROWS if row["piece"] == piece):
        key = f"{row['layer']} {row['of']}"
        if key not in found:
            found[key] = pieces.number(row, pieces.ours(row))
        assert found[key] == pytest.approx(row["ours"], rel=near)
        assert found[key] == pytest.approx(row["reference"], rel=row["tolerance"] + near)


def test_the_number_is_the_share_of_the_layer_that_is_lost():
    row = {"piece": "gptq: columns", "layer": 0, "of": {}}
    at = pieces.sample(0)
    assert pieces.number(row, torch.zeros_like(at.weight)) == pytest.approx(1)
    lost = (at.inputs.double() @ (at.weight.double() * 0.25).T).square().sum()
    whole = (at.inputs.double() @ at.weight.double().T).square().sum()
    assert pieces.number(row, at.weight * 0.75) == pytest.approx(float(lost / whole))
    weighed = row | {"piece": "squeezellm: k-means of rows"}
    off = at.weight.clone()
    off[0] = 0
    energy = at.fisher.double() * at.weight.double().square()
    assert pieces.number(weighed, off) == pytest.approx(float(energy[0].sum() / energy.sum()))
