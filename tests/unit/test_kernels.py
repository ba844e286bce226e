"""Kernels multiply what the term stands for, hold no second form, and are chosen where they can run."""

import copy
from dataclasses import replace

import pytest
import torch
from cells import maker
from term_cases import normal, quantised
from torch import nn

from crunchmark import artifact, kernels
from crunchmark.budget import Room
from crunchmark.efficiency import resident_bytes, work_of
from crunchmark.execution import equip, executed_by, seen, told
from crunchmark.kernels import Int4, Int8, TwoOfFour, kernel_of
from crunchmark.terms import NM, Codebook, Dense, LowRank, Quantised, Shift, Sparse, Sum, laid
from crunchmark.view import View
from methods.rtn import RTN
from tasks.efficiency import Efficiency

CPU, BF16 = torch.device("cpu"), torch.bfloat16
OUT, WIDE = 112, 256  # three blocks of rows and half a one, for every processor's operator
needs_int8 = pytest.mark.skipif(not kernels._works(Int8), reason="torch has no int8 operator for this CPU")
needs_int4 = pytest.mark.skipif(not kernels._works(Int4), reason="torch has no int4 operator for this CPU")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def rounded(bits, group, sym=False, out=OUT, wide=WIDE):
    return quantised(normal(0, out, wide), bits, group, sym)[0]


def others():
    w = normal(0, OUT, WIDE)
    codes = torch.arange(OUT * WIDE // 2).remainder(256).view(OUT, -1).byte()
    return {
        "3 bit": rounded(3, 64),
        "4 bit, groups of 24": rounded(4, 24),
        "sparse": Sparse.of(w, w.abs() > 0.7, BF16),
        "nm": NM.largest(w, w.abs(), 2, 4, BF16),
        "codebook": Codebook.of(codes, normal(1, 256, 2), None, BF16),
        "lifted": Codebook.of(codes, normal(1, 256, 3), normal(2, 3, 2), BF16),
    }


KERNELLED = [
    *(pytest.param(8, -1, sym, "int8 kernel", marks=needs_int8) for sym in (False, True)),
    pytest.param(8, WIDE, False, "int8 kernel", marks=needs_int8),
    *(
        pytest.param(4, group, sym, "int4 kernel", marks=needs_int4)
        for group in (32, 64, 128, 256, -1)
        for sym in (False, True)
    ),
]

BOTH = [pytest.param(8, -1, marks=needs_int8), pytest.param(4, 64, marks=needs_int4)]


def far(got, want):
    return float((got.float() - want).norm() / want.norm())


@pytest.mark.parametrize(("bits", "group", "sym", "label"), KERNELLED)
@torch.no_grad()
def test_a_kernel_multiplies_what_the_term_stands_for(bits, group, sym, label):
    term = rounded(bits, group, sym)
    dense, written = term.dense(), {k: t.clone() for k, t in term.pack()[0].items()}
    equip(term, CPU, BF16)
    assert seen(term) == [label]
    for shape in ((1, WIDE), (2, 3, WIDE), (7, WIDE)):
        x = normal(3, *shape).bfloat16()
        assert term(x).shape == (*shape[:-1], OUT)
        assert term(x).dtype == BF16
        assert far(term(x), x.float() @ dense.T) < 5e-3
    assert torch.equal(term.dense(), dense)
    assert all(torch.equal(t, written[k]) for k, t in term.pack()[0].items())


@pytest.mark.parametrize(("bits", "group"), BOTH)
@torch.no_grad()
def test_zeros_far_from_the_middle_cost_no_accuracy(bits, group):
    """All weights and inputs of one sign, most near zero: what is added back is most of the result."""
    term = quantised(normal(0, OUT, WIDE).abs() ** 4, bits, group, sym=False)[0]
    x = (normal(3, 4, WIDE) + 2).bfloat16()
    want = x.float() @ term.dense().T
    equip(term, CPU, BF16)
    assert far(term(x), want) < 5e-3


@pytest.mark.parametrize(("bits", "group", "sym", "label"), KERNELLED)
def test_codes_are_resident_once_and_come_back(bits, group, sym, label):
    term = rounded(bits, group, sym)
    before, plain = {k: t.clone() for k, t in term.state_dict().items()}, resident_bytes(term)
    equip(term, CPU, BF16)
    assert term.codes is None
    inputs = {32: 8, 64: 4, 128: 2}.get(group, 1)  # that have scales of their own
    wanted = OUT * (2 if sym else 18) if bits == 8 else OUT * inputs * 4
    assert resident_bytes(term) - plain == wanted  # of scales and zeros as the operator wants them, no codes
    assert term.state_dict().keys() == before.keys()
    assert all(torch.equal(t, before[k]) for k, t in term.state_dict().items())
    term.run_by(None)
    assert torch.equal(term.codes, before["codes"])
    assert resident_bytes(term) == plain


@pytest.mark.parametrize(("bits", "group"), BOTH)
@torch.no_grad()
def test_an_input_from_the_middle_of_a_tensor(bits, group):
    """Operators load from aligned addresses only; a slice, or a transposed one, need not start at one."""
    term = rounded(bits, group)
    dense = term.dense()
    equip(term, CPU, BF16)
    long = normal(3, 1, WIDE + 3).bfloat16()
    for x in (long[:, 3:], normal(4, WIDE, 5).bfloat16().T, long[:, :WIDE].expand(4, WIDE)):
        assert far(term(x), x.float() @ dense.T) < 5e-3


@pytest.mark.parametrize("out", [16, 32, 48, 64, 80, 144, 4112])
@needs_int4
def test_codes_of_any_count_of_rows_come_back(out):
    term = rounded(4, 32, out=out, wide=64)
    codes = term.unpacked()
    assert torch.equal(Int4(term, BF16).codes(), codes)


@pytest.mark.parametrize("name", others())
def test_without_a_kernel_the_weight_is_laid_out(name, monkeypatch):
    """To the last bit what the dense weight gives in float32; in bfloat16 within its own error."""
    term = others()[name]
    equip(term, CPU, BF16)
    assert seen(term) == ["unpacked per call"]
    x = normal(3, 5, WIDE)
    want = nn.functional.linear(x, term.dense())
    assert torch.equal(term(x), want)
    for native in (False, True):
        monkeypatch.setattr(laid, "native_bf16", lambda native=native: native)
        assert far(term(x.bfloat16()), x.bfloat16().float() @ term.dense().T) < 5e-3
    assert torch.equal(term.laid_out(BF16), term.dense().bfloat16())


@needs_int8
def test_many_rows_and_gradients_do_not_take_the_kernel(monkeypatch):
    term, ran = rounded(8, -1), []
    equip(term, CPU, BF16)
    monkeypatch.setattr(Int8, "multiply", lambda self, x: ran.append(len(x)) or torch.zeros(len(x), OUT))
    most = term.kernel.most
    x = normal(3, most + 1, WIDE).bfloat16()
    for rows in (1, most, most + 1):
        term(x[:rows])
    term(x[:0])
    term(x[:1].float())
    assert ran == [1, most]
    learnt = x[:1].clone().requires_grad_()
    term(learnt).sum().backward()
    assert ran == [1, most]
    assert torch.isfinite(learnt.grad).all()


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


def test_a_torch_without_the_operators_or_with_wrong_ones_has_no_kernel(monkeypatch):
    meta = rounded(8, -1).pack()[1]

    def broken(self, x):
        raise RuntimeError("not on this processor")

    for multiply in (broken, lambda self, x: torch.zeros(len(x), len(self.weight))):
        kernels._works.cache_clear()
        monkeypatch.setattr(Int8, "multiply", multiply)
        assert told(meta, CPU, BF16) == ["unpacked per call"]
    kernels._works.cache_clear()


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


@needs_int4
def test_a_kernel_stays_through_a_cast_and_a_copy_and_not_on_another_device():
    term = rounded(4, 32)
    equip(term, CPU, BF16)
    x = normal(3, 2, WIDE).bfloat16()
    want = term(x)
    assert torch.equal(copy.deepcopy(term).float()(x), want)
    assert term.to("meta").kernel is None
    assert term.codes.shape == (OUT, WIDE // 2)


@needs_int8
@needs_int4
def test_flops_of_a_kernel_are_those_of_its_product():
    for term in (rounded(8, -1), rounded(4, 32)):
        equip(term, CPU, BF16)
        assert work_of(lambda term=term: term(normal(3, 3, WIDE).bfloat16())).flops >= 2 * 3 * OUT * WIDE


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


@needs_cuda
@torch.no_grad()
def test_kernels_of_a_gpu():
    device = torch.device("cuda")
    w = normal(0, 256, 256)
    four, half = rounded(4, 64, out=256), NM.largest(w, w.abs(), 2, 4, BF16)
    for term in (four, half):
        want = normal(3, 4, 256).bfloat16().float() @ term.dense().T
        equip(term.to(device), device, BF16)
        if seen(term) == ["unpacked per call"]:
            pytest.skip("this GPU has no kernel for it")
        assert far(term(normal(3, 4, 256).bfloat16().to(device)).cpu(), want) < 5e-3


def test_a_gpu_kernel_is_for_its_shapes_and_dtypes(monkeypatch):
    """The choice alone: nothing here runs on a GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    cuda, w = torch.device("cuda"), normal(0, 64, 256)
    half = NM.largest(w, w.abs(), 2, 4, BF16).pack()[1]
    assert kernel_of(half, cuda, BF16) is TwoOfFour
    assert kernel_of(half, cuda, torch.float32) is None
    assert kernel_of(NM.largest(w, w.abs(), 4, 8, BF16).pack()[1], cuda, BF16) is None
    assert kernel_of(rounded(4, 64, out=64).pack()[1], cuda, BF16) is kernels.Int4Cuda
    assert kernel_of(rounded(8, -1).pack()[1], cuda, BF16) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert kernel_of(half, cuda, BF16) is None


def test_quantised_room_is_untouched_by_a_kernel():
    """What a budget buys does not depend on the machine."""
    term = rounded(8, -1)
    size = term.nbytes()
    equip(term, CPU, BF16)
    assert term.nbytes() == size == Quantised.size((OUT, WIDE), 8, -1, sym=False)
    assert Quantised.fits((OUT, WIDE), Room(size), "x") == (8, -1)
