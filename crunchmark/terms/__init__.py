"""What stands in for a weight: leaves, which hold tensors, and their joins Sum and Product."""

from crunchmark.terms.base import KINDS, Meta, Packed, Term, expect, unpack
from crunchmark.terms.codebook import Codebook, check_runs, check_words
from crunchmark.terms.dense import Dense
from crunchmark.terms.joins import Product, Sum
from crunchmark.terms.kept import Kept, Layout
from crunchmark.terms.lowrank import LowRank
from crunchmark.terms.nm import NM
from crunchmark.terms.normal_float import NormalFloat
from crunchmark.terms.packing import pack_bits, pack_mask, top, unpack_bits, unpack_mask
from crunchmark.terms.quantised import Quantised, check_group, groups_for
from crunchmark.terms.shift import Shift
from crunchmark.terms.sparse import Sparse
from crunchmark.terms.sparse_quantised import Settings, SparseQuantised
from crunchmark.terms.tensor_train import TensorTrain
from crunchmark.terms.zero import Zero

__all__ = [
    "KINDS",
    "NM",
    "Codebook",
    "Dense",
    "Kept",
    "Layout",
    "LowRank",
    "Meta",
    "NormalFloat",
    "Packed",
    "Product",
    "Quantised",
    "Settings",
    "Shift",
    "Sparse",
    "SparseQuantised",
    "Sum",
    "TensorTrain",
    "Term",
    "Zero",
    "check_group",
    "check_runs",
    "check_words",
    "expect",
    "groups_for",
    "pack_bits",
    "pack_mask",
    "top",
    "unpack",
    "unpack_bits",
    "unpack_mask",
]
