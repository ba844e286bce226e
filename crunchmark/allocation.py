"""From a budget to rooms: the total of the scope, and shares of it made into rooms that can be filled."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import dtype as Dtype

from crunchmark.budget import Plan, Room, dense_bytes
from crunchmark.checks import one_of
from crunchmark.interface import Allocator, Trial
from crunchmark.view import View

ACCOUNTINGS = ("bytes", "nominal")
SCOPES = ("blocks", "model")
HALVINGS = 100  # of the interval a shift is sought in: to the last bit of a float
Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Uniform(Allocator):
    """Every layer keeps the same share."""

    def allocate(self, trial: Trial, layers: Shapes, total: int) -> Plan:
        """Equal shares, each as large as the method can fill."""
        return trial.fit(dict.fromkeys(layers, trial.share))


def equal_shares(view: View, budget: float, accounting: str, scope: str, dtype: Dtype) -> Plan:
    """Rooms of equal shares that sum to at most the total.

    Raises:
        ValueError: accounting or scope is unknown.
    """
    one_of("accounting", accounting, ACCOUNTINGS)
    one_of("scope", scope, SCOPES)
    layers = view.layers()
    blocks = sum(dense_bytes(s) for s in layers.values())
    whole = view.scope_bytes(scope)
    outside = whole - blocks if scope == "model" else 0
    total = int((1 - budget) * whole) - outside  # below zero where the rest alone is too much
    share = total / blocks
    asked = ((1 - budget) * whole - outside) / blocks  # whole bytes would cost exact shares a weight
    nominal = asked if accounting == "nominal" else None
    rooms = {k: Room(max(0, int(share * dense_bytes(s))), nominal, dtype) for k, s in layers.items()}
    return Plan(rooms, budget, accounting, scope, total, dtype)


def fit(
    plan: Plan, shapes: Shapes, keeps: Mapping[str, float], sizes: Mapping[str, Sequence[int]], **notes: Any
) -> Plan:
    """The plan's total under other shares.

    Shares are shifted together, each within what its layer can be, until they sum to the total; in bytes, a
    layer of certain sizes then gets the largest that fits, and what is left over goes where most was cut off.
    Where layers that can only be dense leave less than the others need, all rooms are empty.

    Args:
        plan: of equal shares.
        shapes: (out, in) by layer.
        keeps: share of each layer that is wanted, any number.
        sizes: bytes by layer, ascending, of those that can not have any size.
        notes: JSON facts about the allocation.
    """
    dense = {name: dense_bytes(shape) for name, shape in shapes.items()}
    nominal = next(iter(plan.rooms.values())).nominal
    share = plan.total / sum(dense.values()) if nominal is None else nominal
    least = {name: sizes[name][0] / dense[name] if sizes.get(name) else 0.0 for name in dense}
    fixed = {name: dense[name] for name, low in least.items() if low >= 1}
    if fixed and sum(fixed.values()) > share * sum(dense.values()):
        shares = dict.fromkeys(dense, 0.0)
    elif len(set(keeps.values())) > 1:
        shares = _shifted(dense, keeps, least, share)
    elif fixed:
        shares = _equal(dense, fixed, share)
    else:
        shares = dict.fromkeys(dense, share)  # as it is: a shift would cost it its last bits
    rooms = {name: max(0, int(shares[name] * dense[name])) for name in dense}
    if nominal is None:
        rooms = _spent(rooms, sizes, plan.total)
    made = {
        name: Room(rooms[name], None if nominal is None else shares[name], plan.dtype) for name in plan.rooms
    }
    return replace(plan, rooms=made, notes={**plan.notes, **notes})


def _equal(dense: Mapping[str, int], fixed: Mapping[str, int], share: float) -> dict[str, float]:
    """The same share for all but those that stay dense, so that they weigh `share` together."""
    whole, full = sum(dense.values()), sum(fixed.values())
    left = (share * whole - full) / max(1, whole - full)
    return {name: 1.0 if name in fixed else left for name in dense}


def _shifted(
    dense: Mapping[str, int], keeps: Mapping[str, float], least: Mapping[str, float], share: float
) -> dict[str, float]:
    """Shares keep + t, clipped to [least, 1], that weigh `share` of the dense bytes together."""

    def at(t: float) -> dict[str, float]:
        return {name: min(1.0, max(least[name], keeps[name] + t)) for name in dense}

    goal, low, high = share * sum(dense.values()), -1 - max(keeps.values()), 1 - min(keeps.values())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if sum(s * dense[name] for name, s in at(middle).items()) <= goal:
            low = middle
        else:
            high = middle
    return at(low)


def _spent(rooms: dict[str, int], sizes: Mapping[str, Sequence[int]], total: int) -> dict[str, int]:
    """Rooms cut down to sizes, and what was cut off spent again on the next size of some."""
    found, lost = dict(rooms), {}
    for name, options in sizes.items():
        k = bisect_right(options, rooms[name])
        if k:
            found[name] = options[k - 1]
            step = options[k] - options[k - 1] if k < len(options) else 0
            lost[name] = (rooms[name] - options[k - 1]) / step if step else 0.0
    left = total - sum(found.values())
    queue = sorted(lost, key=lambda name: lost[name], reverse=True)
    while queue:
        again = []
        for name in queue:
            k = bisect_right(sizes[name], found[name])
            if k < len(sizes[name]) and sizes[name][k] - found[name] <= left:
                left -= sizes[name][k] - found[name]
                found[name] = sizes[name][k]
                again.append(name)
        queue = again
    return found
