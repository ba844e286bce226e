"""Terms of every kind and shape, drawn at random."""

import math
from itertools import pairwise

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from crunchmark.mpo import Chain
from crunchmark.normal import BITS, NormalGrid, to_normal
from crunchmark.rounding import grid, round_to, snap, value_of
from crunchmark.terms import (
    NM,
    Bilevel,
    Codebook,
    Dense,
    Kept,
    Layout,
    LowRank,
    Nest,
    NormalFloat,
    Outliers,
    Product,
    Quantised,
    Segments,
    Sparse,
    SparseQuantised,
    Sum,
    Table,
    TensorTrain,
    top,
    unpack_bits,
)

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
sides = st.integers(1, 40)
seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.bfloat16, torch.float16, torch.float32])
all_bits = st.integers(2, 8)
some_bits = st.integers(1, 8)  # of scales and zeros


KINDS = ["dense", "low_rank", "tensor_train", "sparse", "nm", "quantised", "codebook", "sparse_quantised"]
KINDS += ["outliers", "bilevel", "table", "segments", "normal_float"]
normal_grids = st.builds(NormalGrid, *[st.sampled_from(BITS)] * 2, st.integers(1, 70), st.integers(1, 20))


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bits_per_weight(term):
    """Of what is written, tensor by tensor."""
    written = sum(t.numel() * t.element_size() for t in term.pack()[0].values())
    return 8 * written / math.prod(term.shape)


def quantised(w, bits, group, sym, real=False):
    """Round each group on its own, without the term's own layout code; the last may be shorter.

    real: the zeros are float16, a third of a code off.
    """
    parts = [w] if group == -1 else list(w.split(group, dim=1))
    grids = [grid(p, bits, sym) for p in parts]
    codes = torch.cat([round_to(p, s, z, bits) for p, (s, z) in zip(parts, grids, strict=True)], 1)
    if real:
        grids = [(s, z.half() + 1 / 3) for s, z in grids]
    scale, zero = (torch.stack([g[i] for g in grids], 1) for i in (0, 1))
    ends = [0, *torch.tensor([p.shape[1] for p in parts]).cumsum(0).tolist()]
    spans = [codes[:, a:b] for a, b in pairwise(ends)]
    want = torch.cat([value_of(c, s, z) for c, (s, z) in zip(spans, grids, strict=True)], 1)
    return Quantised.of(codes, scale, None if sym else zero, bits, group), want


def bilevel(w, bits, nest, order=None):
    """The term of a weight (out, in), and what its groups' own grids make of it; order: of the columns."""
    columns = w if order is None else w[:, order]
    parts = columns.split(nest.group, dim=1)
    grids = [nest.grid(part, bits) for part in parts]
    codes = [snap(part, g.scale, g.zero, bits) for part, g in zip(parts, grids, strict=True)]
    value = torch.cat([value_of(c, g.scale, g.zero) for c, g in zip(codes, grids, strict=True)], 1)
    want = value if order is None else value[:, order.argsort()]
    return Bilevel.of(torch.cat(codes, 1), grids, bits, nest, order), want


@st.composite
def nests(draw):
    return Nest(draw(st.integers(1, 20)), draw(st.integers(1, 20)), draw(some_bits), draw(some_bits))


@st.composite
def tables(draw, w, dtype):
    bits = draw(all_bits)
    codes = (w.abs() * 1000).int() % 2**bits  # (out, in)
    return Table.of(codes.byte(), normal(draw(seeds), len(w), 2**bits).to(dtype))


@st.composite
def kept_codes(draw, shape, seed, bits, sym):
    """A term, what it keeps, and its weight, in one of the layouts that the shape allows."""
    out, wide = shape
    w, form = normal(seed, out, wide), draw(st.sampled_from(["bitmap", "nm", "groups"]))
    spans = [m for m in range(2 if form == "nm" else 1, wide + 1) if wide % m == 0]
    layout, mask = Layout(), w.abs() > draw(st.floats(0, 3))
    group = draw(st.sampled_from([1, 3, 8, 32, -1]))
    if form != "bitmap" and spans:
        layout = Layout(form, draw(st.sampled_from(spans)))
        parts = w.view(out, -1, layout.span)
        mask = top(parts.abs(), draw(st.integers(0, layout.span))).view(out, wide)
    if layout.form == "groups":
        group = layout.span
        mask = (parts[..., :1] > draw(st.floats(-1, 1))).expand(parts.shape).reshape(out, wide)
    dense, want = quantised(w, bits, group, sym)
    codes, zero = unpack_bits(dense.codes, bits, wide), None
    if not sym:
        zero = unpack_bits(dense.zero, bits, dense.scale.shape[1])
    kept = Kept(mask, layout)
    return SparseQuantised.of(kept, codes, dense.scale, zero, bits, group), kept, want.where(mask, 0.0)


@st.composite
def leaves(draw, shape=None):
    out, wide = shape or (draw(sides), draw(sides))
    w, dtype = normal(draw(seeds), out, wide), draw(dtypes)
    kind = draw(st.sampled_from(KINDS))
    if kind == "low_rank":
        r = draw(st.integers(1, 5))
        return LowRank.of(normal(draw(seeds), out, r), normal(draw(seeds), r, wide), dtype)
    if kind == "tensor_train":
        chain = Chain.balanced((out, wide), draw(st.integers(1, 4)))
        ends = (1, *chain.bonds(draw(st.integers(1, 6))), 1)
        shapes = zip(ends, chain.rows, chain.cols, ends[1:], strict=False)
        return TensorTrain.of([normal(draw(seeds), *shape) for shape in shapes], dtype)
    if kind == "codebook":
        length = draw(st.sampled_from([n for n in range(1, wide + 1) if wide % n == 0]))
        bits, dims = draw(all_bits), draw(st.integers(0, 3))
        codes = (w[:, ::length].abs() * 1000).int() % 2**bits  # (out, in / length)
        lift = normal(draw(seeds), dims, length) if dims else None
        return Codebook.of(codes.byte(), normal(draw(seeds), 2**bits, dims or length), lift, dtype)
    if kind == "table":
        return draw(tables(w, dtype))
    if kind == "bilevel":
        order = normal(draw(seeds), wide).argsort() if draw(st.booleans()) else None
        return bilevel(w, draw(all_bits), draw(nests()), order)[0]
    if kind == "outliers":
        return Outliers.of(w, w.abs() > draw(st.floats(0, 3)), dtype)
    if kind == "segments":
        length = draw(st.sampled_from([n for n in range(1, out + 1) if out % n == 0]))
        index = (w[::length].abs() * 1000).int() % length  # (segments, in)
        return Segments.of(normal(draw(seeds), out // length, wide), index.byte(), length, dtype)
    if kind == "normal_float":
        return NormalFloat.of((out, wide), to_normal(w, draw(normal_grids)))
    if kind == "sparse":
        return Sparse.of(w, w.abs() > draw(st.floats(0, 3)), dtype)
    runs = [m for m in range(2, wide + 1) if wide % m == 0]
    if kind == "nm" and runs:
        m = draw(st.sampled_from(runs))
        return NM.largest(w, w.abs(), draw(st.integers(1, m)), m, dtype)
    if kind == "sparse_quantised":
        return draw(kept_codes((out, wide), draw(seeds), draw(all_bits), draw(st.booleans())))[0]
    if kind == "quantised":
        zeros = draw(st.sampled_from(["code", "none", "real"]))
        group = draw(st.sampled_from([1, 3, 8, 32, -1]))
        return quantised(w, draw(all_bits), group, zeros == "none", zeros == "real")[0]
    return Dense(w, dtype)


@st.composite
def terms(draw):
    shape = out, wide = draw(sides), draw(sides)
    join = draw(st.sampled_from(["leaf", "sum", "product", "nested"]))
    if join == "leaf":
        return draw(leaves(shape))
    if join == "sum":
        return Sum([draw(leaves(shape)) for _ in range(draw(st.integers(1, 3)))])
    inner = draw(sides)
    product = Product([draw(leaves((out, inner))), draw(leaves((inner, wide)))])
    return product if join == "product" else Sum([draw(leaves(shape)), product])
