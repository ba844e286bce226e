"""From a budget to rooms: the total of the scope, split by an allocator."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import dtype as Dtype

from crunchmark.budget import Plan, Room, dense_bytes
from crunchmark.checks import one_of
from crunchmark.view import View

ACCOUNTINGS = ("bytes", "nominal")
SCOPES = ("blocks", "model")


@dataclass(frozen=True)
class Uniform:
    """Every layer keeps the same share."""

    def plan(self, view: View, budget: float, accounting: str, scope: str, dtype: Dtype) -> Plan:
        """Rooms that sum to at most the total.

        Raises:
            ValueError: accounting or scope is unknown.
        """
        one_of("accounting", accounting, ACCOUNTINGS)
        one_of("scope", scope, SCOPES)
        layers: Mapping[str, tuple[int, int]] = view.layers()
        blocks = sum(dense_bytes(s) for s in layers.values())
        whole = view.scope_bytes(scope)
        outside = whole - blocks if scope == "model" else 0
        total = int((1 - budget) * whole) - outside  # below zero where the rest alone is too much
        share = total / blocks
        asked = ((1 - budget) * whole - outside) / blocks  # whole bytes would cost exact shares a weight
        nominal = asked if accounting == "nominal" else None
        rooms = {k: Room(max(0, int(share * dense_bytes(s))), nominal, dtype) for k, s in layers.items()}
        return Plan(rooms, budget, accounting, scope, total, dtype)
