"""What stands in for a weight: leaves, which hold tensors, and their joins Sum and Product."""

from crunchmark.terms.base import KINDS, Meta, Packed, Term, expect, unpack
from crunchmark.terms.codebook import Codebook, check_runs, check_words
from crunchmark.terms.dense import Dense
from crunchmark.terms.groups import Groups
from crunchmark.terms.joins import Product, Sum
from crunchmark.terms.lowrank import LowRank
from crunchmark.terms.nm import NM
from crunchmark.terms.packing import pack_bits, pack_mask, top, unpack_bits, unpack_mask
from crunchmark.terms.quantised import Quantised
from crunchmark.terms.segments import Segments
from crunchmark.terms.shift import Shift
from crunchmark.terms.sparse import Sparse
from crunchmark.terms.tensor_train import TensorTrain
from crunchmark.terms.zero import Zero

__all__ = [
    "KINDS",
    "NM",
    "Codebook",
    "Dense",
    "Groups",
    "LowRank",
    "Meta",
    "Packed",
    "Product",
    "Quantised",
    "Segments",
    "Shift",
    "Sparse",
    "Sum",
    "TensorTrain",
    "Term",
    "Zero",
    "check_runs",
    "check_words",
    "expect",
    "pack_bits",
    "pack_mask",
    "top",
    "unpack",
    "unpack_bits",
    "unpack_mask",
]
