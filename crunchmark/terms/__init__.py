"""What stands in for a weight: leaves, which hold tensors, and their joins Sum and Product."""

from crunchmark.terms.base import KINDS, Meta, Packed, Term, check_finite, expect, unpack
from crunchmark.terms.bilevel import Bilevel, Group, Nest
from crunchmark.terms.codebook import Codebook, check_runs, check_words
from crunchmark.terms.dense import Dense
from crunchmark.terms.joins import Join, Product, Sum
from crunchmark.terms.kept import Kept, Layout
from crunchmark.terms.laid import Holder, Kernel, Laid, native_bf16, product_dtype
from crunchmark.terms.lowrank import LowRank
from crunchmark.terms.nm import NM
from crunchmark.terms.normal_float import NormalFloat
from crunchmark.terms.outliers import Outliers
from crunchmark.terms.packing import pack_bits, pack_mask, pad, top, unpack_bits, unpack_mask
from crunchmark.terms.quantised import Quantised, check_group, groups_for
from crunchmark.terms.segments import Segments
from crunchmark.terms.shift import Shift
from crunchmark.terms.sparse import Sparse
from crunchmark.terms.sparse_quantised import Settings, SparseQuantised
from crunchmark.terms.table import Table
from crunchmark.terms.tensor_train import TensorTrain
from crunchmark.terms.zero import Zero

__all__ = [
    "KINDS",
    "NM",
    "Bilevel",
    "Codebook",
    "Dense",
    "Group",
    "Holder",
    "Join",
    "Kept",
    "Kernel",
    "Laid",
    "Layout",
    "LowRank",
    "Meta",
    "Nest",
    "NormalFloat",
    "Outliers",
    "Packed",
    "Product",
    "Quantised",
    "Segments",
    "Settings",
    "Shift",
    "Sparse",
    "SparseQuantised",
    "Sum",
    "Table",
    "TensorTrain",
    "Term",
    "Zero",
    "check_finite",
    "check_group",
    "check_runs",
    "check_words",
    "expect",
    "groups_for",
    "native_bf16",
    "pack_bits",
    "pack_mask",
    "pad",
    "product_dtype",
    "top",
    "unpack",
    "unpack_bits",
    "unpack_mask",
]
