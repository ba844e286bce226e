"""Which kernel multiplies by a term's packed form on a device in a dtype, and what there is without one.

The kernels are operators of torch itself (docs/adr/0013-kernels-by-capability.md). A choice is made from a
term's meta, so that a manifest tells it as well as a model.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crunchmark.terms import NM, Holder, Kernel, Quantised, native_bf16, pad

ATEN = torch.ops.aten
GROUPS = (256, 128, 64, 32)  # inputs that a scale of a 4-bit kernel may be for
NATIVE = 16  # rows up to which a kernel is faster than laying out where bfloat16 products are native
Meta = Mapping[str, Any]


class Int8(Holder):
    """8 bit and one scale per row, on a CPU: y = scale * (x (codes - 128)^T + sum(x) (128 - zero)).

    The second part comes of 16 more inputs, so that it is summed before y is rounded to bfloat16: x's sum in
    two parts, times 128 - zero in two halves.
    """

    label: ClassVar[str] = "int8 kernel"
    weight: Tensor  # (out, in) or (out, in + 16) int8: codes - 128, then the halves of 128 - zero, then 0
    scale: Tensor  # (out,)

    def __init__(self, term: Quantised, dtype: torch.dtype) -> None:
        super().__init__(dtype, most=NATIVE if native_bf16() else 96)
        weight, self.wide = (term.unpacked() ^ 128).view(torch.int8), term.shape[1]
        if term.zero is not None:
            lift = 128 - term.zeros().int()  # (out, 1), -127 to 128
            halves = torch.cat((lift // 2, lift - lift // 2), 1).to(torch.int8)  # (out, 2)
            weight = torch.cat((weight, pad(halves.repeat(1, 2), 12)), 1)  # (out, in + 16)
        self.keep("weight", weight)
        self.keep("scale", term.scale[:, 0].to(dtype))

    def codes(self) -> Tensor:
        """The codes (out, in) uint8."""
        return self.weight[:, : self.wide].contiguous().view(torch.uint8) ^ 128  # (out, in)

    def multiply(self, x: Tensor) -> Tensor:
        """X (M, in) -> (M, out)."""
        if self.weight.shape[1] > self.wide:
            total = x.float().sum(-1, keepdim=True)  # (M, 1)
            most = total.to(x.dtype)
            rest = (total - most.float()).to(x.dtype)  # (M, 1)
            x = torch.cat((x, pad(torch.cat((most, most, rest, rest), 1), 12)), 1)  # (M, in + 16)
        y: Tensor = ATEN._weight_int8pack_mm(x, self.weight, self.scale)  # (M, out)
        return y

    @classmethod
    def can(cls, meta: Meta, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether it runs a term with that meta there."""
        if meta["kind"] != Quantised.kind or device.type != "cpu" or dtype != torch.bfloat16:
            return False
        (out, wide), rows = meta["shape"], _group(meta) == meta["shape"][1]
        fits = out % 4 == 0 and wide % 16 == 0  # the operator does not look, and reads past the end
        usual = meta["bits"] == 8 and not meta.get("real")
        return usual and rows and fits and _works(cls, device, dtype)


class FourBit(Kernel):
    """4 bit in groups: w = (code - 8) * scale + (8 - zero) * scale."""

    label: ClassVar[str] = "int4 kernel"
    weight: Tensor  # (out, in / 2) uint8, as the operator wants it on this device
    grid: Tensor  # (in / group, out, 2): scale, and (8 - zero) * scale

    def __init__(self, term: Quantised, dtype: torch.dtype, most: int | None) -> None:
        super().__init__(dtype, most)
        wide, meta = term.shape[1], term.pack()[1]
        self.group = next(g for g in GROUPS if _group(meta) % g == 0)
        scale = term.scale.float()  # (out, groups)
        both = torch.stack((scale, (8 - term.zeros().float()) * scale), -1)  # (out, groups, 2)
        both = both.repeat_interleave(wide // self.group // scale.shape[1], 1)  # (out, in / group, 2)
        self.keep("grid", both.transpose(0, 1).to(dtype))


class Int4(FourBit, Holder):
    """On a CPU."""

    def __init__(self, term: Quantised, dtype: torch.dtype) -> None:
        super().__init__(term, dtype, most=NATIVE if native_bf16() else 192)
        self.keep("weight", ATEN._convert_weight_to_int4pack_for_cpu(term.unpacked().int(), 1))

    def codes(self) -> Tensor:
        """The codes (out, in) uint8: the operator's own blocks of rows, taken apart."""
        out, wide = self.weight.shape[0], 2 * self.weight.shape[1]
        block, order = _layout(out)
        whole, parts = out // block * block, []
        flat = self.weight.flatten().split([whole * wide // 2, (out - whole) * wide // 2])
        for part, rows, side in zip(flat, (whole, out - whole), (block, out - whole), strict=True):
            if rows:
                pair = torch.stack((part & 15, part >> 4), -1)  # (rows * in / 2, 2)
                parts.append(pair.view(rows // side, wide, side).transpose(1, 2).reshape(rows, wide))
        return torch.cat(parts)[order]  # (out, in)

    def multiply(self, x: Tensor) -> Tensor:
        """X (M, in) -> (M, out)."""
        y: Tensor = ATEN._weight_int4pack_mm_for_cpu(x, self.weight, self.group, self.grid)  # (M, out)
        return y

    @classmethod
    def can(cls, meta: Meta, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether it runs a term with that meta there."""
        there = device.type == "cpu" and dtype == torch.bfloat16 and _grouped(meta, 16)
        return there and _works(cls, device, dtype)


class Int4Cuda(FourBit):
    """On a GPU: written after the operator's description, not run by us. Codes stay beside it, and count."""

    def __init__(self, term: Quantised, dtype: torch.dtype) -> None:
        super().__init__(term, dtype, most=None)  # from where on laying out is faster there is not known
        codes = term.unpacked()  # (out, in)
        pairs = codes[:, ::2] << 4 | codes[:, 1::2]  # (out, in / 2)
        self.keep("weight", ATEN._convert_weight_to_int4pack(pairs.contiguous(), 8))

    def multiply(self, x: Tensor) -> Tensor:
        """X (M, in) -> (M, out)."""
        y: Tensor = ATEN._weight_int4pack_mm(x, self.weight, self.group, self.grid)  # (M, out)
        return y

    @classmethod
    def can(cls, meta: Meta, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether it runs a term with that meta there: compute capability 8, tiles of 8 by 128."""
        there = dtype == torch.bfloat16 and _ampere(device) and _grouped(meta, 8)
        return there and meta["shape"][1] % 128 == 0 and _works(cls, device, dtype)


class TwoOfFour(Kernel):
    """2:4 on the sparse tensor cores of a GPU. Written after torch's description, not run by us."""

    label: ClassVar[str] = "2:4 kernel"

    def __init__(self, term: NM, dtype: torch.dtype) -> None:
        super().__init__(dtype, None)
        self._sparse = (
            torch.sparse.to_sparse_semi_structured(term.laid_out(dtype)),
        )  # hidden from nn.Module
        for name in self._sparse[0].__tensor_flatten__()[0]:
            self.keep(f"sparse_{name}", getattr(self._sparse[0], name))

    def multiply(self, x: Tensor) -> Tensor:
        """X (M, in) -> (M, out)."""
        return nn.functional.linear(x, self._sparse[0])  # (M, out)

    @classmethod
    def can(cls, meta: Meta, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether it runs a term with that meta there: compute capability 8, tiles of 32 by 64."""
        if meta["kind"] != NM.kind or dtype not in (torch.bfloat16, torch.float16) or not _ampere(device):
            return False
        (out, wide), pattern = meta["shape"], (meta["n"], meta["m"])
        return pattern == (2, 4) and out % 32 == 0 and wide % 64 == 0 and _works(cls, device, dtype)


KERNELS: tuple[Any, ...] = (Int8, Int4, Int4Cuda, TwoOfFour)


def kernel_of(meta: Meta, device: torch.device, dtype: torch.dtype) -> Any:
    """The class of the kernel that runs a leaf with that meta, or None."""
    return next((k for k in KERNELS if k.can(meta, device, dtype)), None)


def _group(meta: Meta) -> int:
    """Inputs per scale."""
    wide: int = meta["shape"][1]
    return wide if meta["group"] == -1 else min(meta["group"], wide)


def _grouped(meta: Meta, tile: int) -> bool:
    """Whether it is 4 bit in groups that 4-bit kernels know, with rows that fill tiles."""
    if meta["kind"] != Quantised.kind or meta["bits"] != 4:
        return False
    (out, wide), group = meta["shape"], _group(meta)
    return out % tile == 0 and wide % group == 0 and group % GROUPS[-1] == 0


def _ampere(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def _layout(out: int) -> tuple[int, Tensor]:
    """How the CPU operator orders that many rows: rows of a block, and where each row went (out,).

    Blocks come one after the other, inputs inside a block, rows inside an input; read off its packing.
    """

    def packed(codes: Tensor) -> Tensor:  # (out, 2) -> (out * 2,), a code per half byte
        flat = ATEN._convert_weight_to_int4pack_for_cpu(codes.int(), 1).flatten()  # (out,)
        return torch.stack((flat & 15, flat >> 4), -1).flatten().long()

    rows = torch.arange(out)
    digits = range(0, max(out - 1, 1).bit_length(), 4)
    place = sum(packed((rows >> d & 15)[:, None].expand(out, 2)) << d for d in digits)  # (out * 2,)
    second = packed(torch.tensor([[0, 1]]).expand(out, 2))  # (out * 2,), 1 for the second input
    block = int(second.argmax())
    order: Tensor = place[second == 0]  # type: ignore[index]  # (out,), the row at each place
    return block, order.argsort()


@cache
def _works(kernel: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a kernel runs on that device, multiplies rightly and gives its codes back; tried once."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 128, generator=draw).to(dtype)
    if kernel is TwoOfFour:
        weight = torch.randn(128, 128, generator=draw)
        term: Any = NM.largest(weight, weight.abs(), 2, 4, dtype)
    else:
        bits = 8 if kernel is Int8 else 4
        codes = torch.randint(2**bits, (112, 128), generator=draw, dtype=torch.uint8)
        zero = torch.randint(2**bits, (112, 1), generator=draw, dtype=torch.uint8)
        term = Quantised.of(codes, torch.full((112, 1), 0.01).half(), zero, bits, -1)
    want = x.float() @ term.dense().T  # (3, out)
    try:
        tried = kernel(term.to(device), dtype)
        got = tried(x.to(device)).float().cpu()
        kept = not isinstance(tried, Holder) or torch.equal(tried.codes().cpu(), codes)
    except torch.OutOfMemoryError:  # says nothing of the kernel, and would be remembered
        raise
    except (AttributeError, RuntimeError):  # not in this build, or not for this device
        return False
    return kept and bool((got - want).norm() < 0.01 * want.norm())
