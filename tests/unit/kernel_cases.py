"""Packed layers that kernels run, those they do not, and how far two products are apart."""

import pytest
import torch
from term_cases import normal, quantised

from crunchmark import kernels
from crunchmark.kernels import Int4, Int8
from crunchmark.terms import NM, Codebook, Sparse

CPU, BF16 = torch.device("cpu"), torch.bfloat16
OUT, WIDE = 112, 256  # three blocks of rows and half a one, for every processor's operator
needs_int8 = pytest.mark.skipif(
    not kernels._works(Int8, CPU, BF16), reason="torch has no int8 operator for this CPU"
)
needs_int4 = pytest.mark.skipif(
    not kernels._works(Int4, CPU, BF16), reason="torch has no int4 operator for this CPU"
)
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


def far(got, want):
    return float((got.float() - want).norm() / want.norm())
