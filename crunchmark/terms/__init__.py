"""What stands in for a weight: leaves, which hold tensors, and their joins Sum and Product."""

from crunchmark.terms.base import KINDS, Meta, Packed, Term, expect, unpack
from crunchmark.terms.codebook import Codebook, check_runs, check_words
from crunchmark.terms.dense import Dense
from crunchmark.terms.joins import Join, Product, Sum
from crunchmark.terms.laid import Kernel, Laid, native_bf16, product_dtype
from crunchmark.terms.lowrank import LowRank
from crunchmark.terms.nm import NM
from crunchmark.terms.packing import pack_bits, pack_mask, pad, top, unpack_bits, unpack_mask
from crunchmark.terms.quantised import Quantised
from crunchmark.terms.shift import Shift
from crunchmark.terms.sparse import Sparse
from crunchmark.terms.tensor_train import TensorTrain
from crunchmark.terms.zero import Zero

__all__ = [
    "KINDS",
    "NM",
    "Codebook",
    "Dense",
    "Join",
    "Kernel",
    "Laid",
    "LowRank",
    "Meta",
    "Packed",
    "Product",
    "Quantised",
    "Shift",
    "Sparse",
    "Sum",
    "TensorTrain",
    "Term",
    "Zero",
    "check_runs",
    "check_words",
    "expect",
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
