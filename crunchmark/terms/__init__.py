"""What stands in for a weight: leaves (Dense, LowRank, Sparse, Quantised) and joins (Sum, Product)."""

from crunchmark.terms.base import KINDS, Meta, Packed, Term, expect, unpack

__all__ = ["KINDS", "Meta", "Packed", "Term", "expect", "unpack"]
