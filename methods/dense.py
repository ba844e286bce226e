"""The dense parent: every weight kept in 16 bit. The cell all others are compared with."""

from dataclasses import dataclass

from crunchmark import Keep


@dataclass(frozen=True)
class DenseParent(Keep):
    """Keeps the weight, whatever the budget asks of the other methods of a grid."""
