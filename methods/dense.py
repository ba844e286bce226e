"""The dense parent: every weight kept in 16 bit. The cell all others are compared with."""

from dataclasses import dataclass

from crunchmark import Dense, Layer, Method, Room, Term


@dataclass(frozen=True)
class DenseParent(Method):
    """Keeps the weight, whatever the budget asks of the other methods of a grid."""

    parent = True

    def compress(self, layer: Layer, room: Room) -> Term:
        """The weight in the room's 16-bit dtype."""
        return Dense.of(layer.weight, room)
