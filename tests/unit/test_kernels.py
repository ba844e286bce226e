"""Kernels multiply what the term stands for, hold no second form, and are chosen where they can run."""

import copy

import pytest
import torch
from kernel_cases import BF16, CPU, OUT, WIDE, far, needs_cuda, needs_int4, needs_int8, others, rounded
from term_cases import normal, quantised
from torch import nn

from crunchmark import kernels
from crunchmark.budget import Room
from crunchmark.efficiency import resident_bytes, work_of
from crunchmark.execution import equip, seen, told
from crunchmark.kernels import Int4, Int8, TwoOfFour, kernel_of
from crunchmark.terms import NM, Quantised, laid

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


@needs_cuda
@torch.no_grad()
def test_kernels_of_a_gpu():
    device = torch.device("cuda")
    if torch.cuda.get_device_capability(device) < (8, 0):
        pytest.skip("this GPU has no kernel for it")
    w = normal(0, 256, 256)
    four, half = rounded(4, 64, out=256), NM.largest(w, w.abs(), 2, 4, BF16)
    for term in (four, half):
        want = normal(3, 4, 256).bfloat16().float() @ term.dense().T
        equip(term.to(device), device, BF16)
        assert seen(term) != ["unpacked per call"]
        assert far(term(normal(3, 4, 256).bfloat16().to(device)).cpu(), want) < 5e-3


def test_a_gpu_kernel_is_for_its_shapes_and_dtypes(monkeypatch):
    """The choice alone: nothing here runs on a GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(kernels, "_works", lambda *_: True)
    cuda, w = torch.device("cuda"), normal(0, 64, 256)
    half = NM.largest(w, w.abs(), 2, 4, BF16).pack()[1]
    assert kernel_of(half, cuda, BF16) is TwoOfFour
    assert kernel_of(half, cuda, torch.float32) is None
    assert kernel_of(NM.largest(w, w.abs(), 4, 8, BF16).pack()[1], cuda, BF16) is None
    assert kernel_of(rounded(4, 64, out=64).pack()[1], cuda, BF16) is kernels.Int4Cuda
    assert kernel_of(rounded(8, -1).pack()[1], cuda, BF16) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert kernel_of(half, cuda, BF16) is None


def test_a_gpu_kernel_that_does_not_run_there_is_not_chosen(monkeypatch):
    """A processor stands for a GPU whose operators refuse."""
    monkeypatch.setattr(kernels, "KERNELS", (kernels.Int4Cuda, TwoOfFour))
    monkeypatch.setattr(kernels, "_ampere", lambda device: True)
    kernels._works.cache_clear()
    w = normal(0, 64, 128)
    for term in (NM.largest(w, w.abs(), 2, 4, BF16), rounded(4, 64, out=64)):
        equip(term, CPU, BF16)
        assert seen(term) == told(term.pack()[1], CPU, BF16) == ["unpacked per call"]
    kernels._works.cache_clear()


def test_quantised_room_is_untouched_by_a_kernel():
    """What a budget buys does not depend on the machine."""
    term = rounded(8, -1)
    size = term.nbytes()
    equip(term, CPU, BF16)
    assert term.nbytes() == size == Quantised.size((OUT, WIDE), 8, -1, sym=False)
    assert Quantised.fits((OUT, WIDE), Room(size), "x") == (8, -1)
