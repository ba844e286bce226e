"""Atomic feature mimicking (Yu and Wu, AAAI 2023; for CTR models Yu et al., KDD 2024, arXiv:2405.18146)."""

from dataclasses import dataclass

from crunchmark import Centred


@dataclass(frozen=True)
class AFM(Centred):
    """Features are low rank where weights are not: PCA of every layer's outputs, folded into the weight.

    What the projection takes from the mean output comes back as a bias, which is counted. The papers
    fine-tune afterwards; that is no part of this method.
    """
