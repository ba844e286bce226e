"""Greenformers' low-rank transformer (Cahyawijaya, 2021, arXiv:2108.10808), the SVD start."""

from dataclasses import dataclass

from crunchmark import Layer, Projected, Spectrum, directions


@dataclass(frozen=True)
class LRT(Projected):
    """Every linear becomes an encoder and a decoder of rank q r*, r* = mn / (m + n) the break-even rank.

    The share q of the break-even rank is the share of bytes that is kept. Of the toolkit's starts only SVD
    keeps what was trained; the paper then trains the factors, which comes with recovery.
    """

    def directions(self, layer: Layer) -> Spectrum:
        """Left singular vectors; all of them, where the toolkit draws an approximation."""
        return directions(layer, "identity")
