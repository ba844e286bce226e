"""Rows and models say what runs each layer: a kernel, factors, or a weight laid out at every call."""

from dataclasses import replace

import pytest
import torch
from cells import maker
from kernel_cases import BF16, CPU, OUT, WIDE, far, needs_int4, needs_int8, rounded
from term_cases import normal
from torch import nn

from crunchmark import artifact
from crunchmark.execution import equip, executed_by, seen, told
from crunchmark.kernels import kernel_of
from crunchmark.terms import Dense, LowRank, Shift, Sum
from crunchmark.view import View
from methods.rtn import RTN
from tasks.efficiency import Efficiency

NO = {
    "float32": (rounded(8, -1), torch.float32),
    "float16": (rounded(8, -1), torch.float16),
    "8 bit in groups": (rounded(8, 64), BF16),
    "7 bit": (rounded(7, -1), BF16),
    "odd rows": (rounded(4, 32, out=24), BF16),
    "a shorter last group": (rounded(4, 32, wide=80), BF16),
    "groups of 16": (rounded(4, 16), BF16),
    "8 bit, inputs that fill no register": (rounded(8, -1, wide=40), BF16),  # the operator reads past the end
    "8 bit, rows that fill no block": (rounded(8, -1, out=10), BF16),
}


@pytest.mark.parametrize(("term", "dtype"), NO.values(), ids=NO)
def test_what_no_kernel_runs_is_recorded_as_unpacked(term, dtype):
    assert kernel_of(term.pack()[1], CPU, dtype) is None
    equip(term, CPU, dtype)
    assert seen(term) == told(term.pack()[1], CPU, dtype) == ["unpacked per call"]
    x = normal(3, 3, term.shape[1]).to(dtype)
    assert far(term(x), x.float() @ term.dense().T) < 5e-3


@needs_int4
@needs_int8
def test_joins_run_each_part_and_layers_are_counted():
    w = normal(0, OUT, WIDE)
    low = LowRank.of(normal(1, OUT, 4), normal(2, 4, WIDE), BF16)
    mended = Sum([rounded(4, 32), low, Shift.of(torch.ones(OUT), WIDE, BF16)])
    dense = mended.dense()
    terms = [mended, rounded(8, -1), rounded(8, -1), rounded(3, 64), Dense(w, BF16), low]
    want = [["int4 kernel", "factors"], *[["int8 kernel"]] * 2, ["unpacked per call"], ["dense"], ["factors"]]
    assert [told(t.pack()[1], CPU, BF16) for t in terms] == want
    equip(nn.ModuleList(terms), CPU, BF16)
    assert [seen(t) for t in terms] == want
    said = "int8 kernel: 2; int4 kernel + factors: 1; unpacked per call: 1; dense: 1; factors: 1"
    assert executed_by(want) == said
    assert executed_by(want[1:3]) == "int8 kernel"
    assert executed_by([]) == executed_by([seen(nn.Linear(2, 2))]) == "dense"
    x = normal(3, 2, WIDE).bfloat16()
    assert far(mended(x), x.float() @ dense.T + 1) < 1e-2  # three sums rounded to bfloat16


@pytest.mark.slow
@needs_int8
@needs_int4
@pytest.mark.parametrize(
    ("budget", "compute", "label", "marked"),
    [
        (0.45, "bfloat16", "int8 kernel", False),
        (0.7, "bfloat16", "int4 kernel: 12; unpacked per call: 2", True),  # down: rows of 48
        (0.7, "float32", "unpacked per call", True),
    ],
)
def test_rows_say_what_ran(budget, compute, label, marked, spec, runner, tmp_path, monkeypatch):
    monkeypatch.setattr("crunchmark.efficiency.SIDE", {"cpu": 32})
    speed = Efficiency(batches=[1], lengths=[8], new=2, repeats=2, warmup=0)
    cell = maker(replace(spec, compute=compute), tmp_path)(RTN(), budget, tasks={"efficiency": speed})
    found = runner.run(cell)
    assert {(r["executed_by"], r["simulated"]) for r in found} == {(label, marked)}
    parent = runner.store.cell_rows(cell.study, cell.dense().key)
    assert {(r["executed_by"], r["simulated"]) for r in parent} == {("dense", False)}
    about = runner.store.get_task(cell.study, cell.key, "efficiency")["about"]
    assert about["executed_by"] == label  # seen in the model that was timed
    resident, dense = (
        next(r["value"] for r in rs if r["metric"] == "resident_bytes") for rs in (found, parent)
    )
    assert resident < dense  # though rows of 32 have 16 inputs more


@needs_int4
def test_a_loaded_model_answers_as_its_dense_weights(tmp_path, spec, runner):
    cell = maker(replace(spec, compute="bfloat16"), tmp_path)(RTN(), 0.7)
    with runner._artifact(cell) as folder:
        packed, plain = (artifact.load(folder, packed=p, dtype=BF16) for p in (True, False))
        exact = artifact.load(folder, packed=False)
    found = {site.role: seen(site.module) for site in View(packed).all_sites()}
    assert found.pop("down") == ["unpacked per call"]  # rows of 48
    assert set(map(tuple, found.values())) == {("int4 kernel",)}
    ids = torch.randint(3, 2048, (1, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, rough, want = (m(ids).logits.float() for m in (packed, plain, exact))
    assert far(got, want) < 2 * far(rough, want) + 1e-3  # no worse than bfloat16 itself is
