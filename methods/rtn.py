"""Round to nearest: the data-free baseline of every quantisation paper (see GPTQ, arXiv:2210.17323)."""

from dataclasses import dataclass

from crunchmark import Rounded


@dataclass(frozen=True)
class RTN(Rounded):
    """Min-max grid per group of inputs with zero on it, nearest level per weight.

    group: inputs that share a scale, -1 for the whole row, null for the finest that fits.
    sym: symmetric grid, no stored zero.
    bits: of every weight, 2 to 8, null for the most that fit.
    """
