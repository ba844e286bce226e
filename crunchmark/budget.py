"""Rooms, plans and the ledger: how many bytes a layer may occupy, and what is left of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import floor
from typing import Any

import torch

DENSE_BYTES = 2  # a dense weight counts 16 bit, whatever the checkpoint's dtype
SLACK = 1e-6  # bytes and weights are whole numbers; sums of shares of them are not


class Unreachable(Exception):
    """No setting is small enough.

    needs: the smallest size in bytes that can be made. nearest: the largest budget within reach, if known;
        0: there is none. least: in nominal accounting, the smallest share that can be kept.
    instead: where no budget is within reach, what else to change.
    """

    def __init__(
        self,
        what: str,
        needs: int,
        room: int,
        nearest: float | None = None,
        least: float | None = None,
        instead: str = "",
    ) -> None:
        reach = f"; the nearest reachable budget is {nearest:.4f}" if nearest else ""
        if nearest == 0:
            reach = "; no budget is within reach" + (f"; valid: {instead}" if instead else "")
        super().__init__(f"{what}: the smallest packing is {needs} bytes, the room is {room} bytes{reach}")
        self.what, self.needs, self.room, self.nearest, self.least = what, needs, room, nearest, least


def dense_bytes(shape: tuple[int, int]) -> int:
    """Bytes of a dense 16-bit weight of shape (out, in)."""
    return shape[0] * shape[1] * DENSE_BYTES


def within_reach(need: int, whole: int, outside: int) -> float:
    """The largest budget, in steps of 1e-4, whose total leaves `need` bytes to what can shrink.

    whole: dense bytes of the scope. outside: those of them that can not shrink.
    """
    steps = max(0, floor((1 - (need + outside) / whole) * 1e4 + 1e-9))
    while steps and int((1 - steps / 1e4) * whole) - outside < need:
        steps -= 1
    return steps / 1e4


def check_budget(budget: Any) -> float:
    """Return the budget as a float.

    Raises:
        ValueError: it is no number, not finite, or outside 0 <= budget < 1.
    """
    try:
        value = float(budget)
    except (TypeError, ValueError):
        raise ValueError(
            f"budget={budget!r} is no number; valid: 0 <= budget < 1, the share to remove"
        ) from None
    if isinstance(budget, bool) or not 0 <= value < 1:
        raise ValueError(f"budget={budget} is out of range; valid: 0 <= budget < 1, the share to remove")
    return value


@dataclass(frozen=True)
class Room:
    """What one layer may occupy.

    nbytes: bytes the packed term may take (in nominal accounting: a bound that is not enforced).
    nominal: None in bytes accounting; else the share to keep in the paper's own count
        (weights for sparsity, parameters for low rank, bits/16 for quantisation, width for slicing).
    dtype: how real numbers are stored (bfloat16, float16, or float32).
    """

    nbytes: int
    nominal: float | None = None
    dtype: torch.dtype = torch.bfloat16

    @property
    def itemsize(self) -> int:
        """Bytes of one stored real number."""
        return self.dtype.itemsize

    def whole(self, shape: tuple[int, int]) -> bool:
        """Whether the dense weight (out, in) fits."""
        return self.nbytes >= dense_bytes(shape) if self.nominal is None else self.nominal >= 1

    def less(self, nbytes: int) -> "Room":
        """The room that is left after nbytes are taken (never below zero)."""
        return replace(self, nbytes=max(0, self.nbytes - nbytes))


@dataclass(frozen=True)
class Plan:
    """Rooms of all layers of the scope, and the total they share.

    Saved with every artifact; a saved plan can be replayed.
    """

    rooms: Mapping[str, Room]
    budget: float  # requested share to remove
    accounting: str = "bytes"  # "bytes" or "nominal"
    scope: str = "blocks"  # "blocks": linear layers inside blocks; "model": every weight counts
    total: int = 0  # bytes the whole scope may occupy
    dtype: torch.dtype = torch.bfloat16
    notes: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # (out, in) of what the rooms are for

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {
            "budget": self.budget,
            "accounting": self.accounting,
            "scope": self.scope,
            "total": self.total,
            "dtype": str(self.dtype).removeprefix("torch."),
            "rooms": {k: [r.nbytes, r.nominal] for k, r in self.rooms.items()},
            "notes": dict(self.notes),
            "shapes": {k: list(shape) for k, shape in self.shapes.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Plan":
        """The plan that `to_json` wrote.

        Raises:
            ValueError: a room is no number of bytes; names the layer.
        """
        dtype = getattr(torch, data["dtype"])
        for name, (nbytes, _) in data["rooms"].items():
            if not isinstance(nbytes, int) or nbytes < 0:
                raise ValueError(f"rooms.{name} is {nbytes!r}; valid: bytes, 0 or more")
        rooms = {k: Room(n, nominal, dtype) for k, (n, nominal) in data["rooms"].items()}
        told = (data["budget"], data["accounting"], data["scope"], data["total"])
        shapes = {k: (out, wide) for k, (out, wide) in data.get("shapes", {}).items()}
        return cls(rooms, *told, dtype, data["notes"], shapes)


class Ledger:
    """What is left of a layer's room. Compensation reserves before compression spends."""

    def __init__(self, room: Room) -> None:
        self.room = room

    def reserve(self, nbytes: int) -> None:
        """Take nbytes off the room.

        Raises:
            Unreachable: more than what is left.
        """
        if nbytes > self.room.nbytes:
            raise Unreachable("reserve", nbytes, self.room.nbytes)
        self.room = self.room.less(nbytes)
