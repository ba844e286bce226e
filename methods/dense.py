"""The dense parent: every weight kept in 16 bit. The cell all others are compared with."""

from dataclasses import dataclass

from crunchmark import Dense, Layer, Method, Room, Term, Unreachable, dense_bytes


@dataclass(frozen=True)
class DenseParent(Method):
    """Keeps the weight; only budget 0 is within reach."""

    def compress(self, layer: Layer, room: Room) -> Term:
        """The weight in the room's 16-bit dtype."""
        needs = dense_bytes(layer.shape)
        if room.nbytes < needs:
            raise Unreachable(layer.name, needs, room.nbytes)
        return Dense.of(layer.weight, room)
