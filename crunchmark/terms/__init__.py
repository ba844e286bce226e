"""What stands in for a weight: Dense, LowRank, Sparse, NM, Quantised, Shift, Zero; joins Sum, Product."""

from crunchmark.terms.base import KINDS, Meta, Packed, Term, expect, unpack
from crunchmark.terms.dense import Dense
from crunchmark.terms.joins import Product, Sum
from crunchmark.terms.lowrank import LowRank
from crunchmark.terms.nm import NM
from crunchmark.terms.packing import pack_bits, pack_mask, top, unpack_bits, unpack_mask
from crunchmark.terms.quantised import Quantised
from crunchmark.terms.shift import Shift
from crunchmark.terms.sparse import Sparse
from crunchmark.terms.zero import Zero

__all__ = [
    "KINDS",
    "NM",
    "Dense",
    "LowRank",
    "Meta",
    "Packed",
    "Product",
    "Quantised",
    "Shift",
    "Sparse",
    "Sum",
    "Term",
    "Zero",
    "expect",
    "pack_bits",
    "pack_mask",
    "top",
    "unpack",
    "unpack_bits",
    "unpack_mask",
]
