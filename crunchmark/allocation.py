"""From a budget to rooms: the total of the scope, and shares of it made into rooms that can be filled."""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any

from torch import dtype as Dtype

from crunchmark.budget import Plan, Room, Unreachable, dense_bytes
from crunchmark.checks import one_of
from crunchmark.hub import resolve
from crunchmark.interface import Allocator, Trial
from crunchmark.view import View

ACCOUNTINGS = ("bytes", "nominal")
SCOPES = ("blocks", "model")
EPSILON = 1e-6  # bytes: what products of shares and sizes may be off
ROUNDING = 2  # bytes, of total and room
HALVINGS = 100  # of the interval a shift is sought in: to the last bit of a float
PLANS = "a cell.json of a study, a manifest.json of an artifact, or the plan alone"
Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Uniform(Allocator):
    """Every layer keeps the same share."""

    def allocate(self, trial: Trial, layers: Shapes, total: int) -> Plan:
        """Equal shares, each as large as the method can fill."""
        return trial.fit(dict.fromkeys(layers, trial.share), equal=True)


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
    return Plan(rooms, budget, accounting, scope, total, dtype, shapes=layers)


def saved_plan(path: str | None) -> Plan:
    """The plan in a cell.json of the store, in a manifest.json of an artifact, or in a file of its own.

    Raises:
        ValueError: there is none, or it gives a layer no number of bytes.
    """
    if not isinstance(path, str) or not path:
        raise ValueError(f"allocate.path={path!r} names no file; valid: {PLANS}")
    file = resolve(path)
    if not file.is_file():
        wrong = "is a folder" if file.is_dir() else "does not exist"
        raise ValueError(f"allocate.path={path!r} {wrong}; valid: {PLANS}")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return Plan.from_json(data.get("plan") or data.get("about", {}).get("plan") or data)
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        raise ValueError(f"allocate.path={path!r} holds no plan; valid: {PLANS}") from None
    except ValueError as error:
        raise ValueError(f"allocate.path={path!r}: {error}") from None


def fit(
    plan: Plan,
    shapes: Shapes,
    keeps: Mapping[str, float],
    sizes: Mapping[str, Sequence[int]],
    units: Sequence[Sequence[str]] = (),
    floors: Mapping[str, float] | None = None,
    equal: bool = False,
    **notes: Any,
) -> Plan:
    """The plan's total under other shares.

    Shares are shifted together, each within what its layer can be, until they sum to the total; a layer of
    certain sizes then gets the largest that fits, and what is left over goes where most was cut off. A layer
    that can only be dense is, and the others make up for it. Equal shares in nominal accounting stay as they
    are: that is what papers report; in bytes they leave no layer dense, which would be no equal share.

    Args:
        plan: of equal shares.
        shapes: (out, in) by layer.
        keeps: share of each layer that is wanted, any number.
        sizes: bytes by layer, ascending, of those that can not have any size.
        units: layers that go up together; by default each on its own.
        floors: bytes by layer, of which it keeps no less.
        equal: shares that are equal stay so, also where a layer can not be that small.
        notes: JSON facts about the allocation.

    Raises:
        Unreachable: the smallest sizes sum to more than the total.
    """
    dense = {name: dense_bytes(shape) for name, shape in shapes.items()}
    keeps = _together(keeps, units, dense)
    nominal = next(iter(plan.rooms.values())).nominal
    share = plan.total / sum(dense.values()) if nominal is None else nominal
    least = {
        name: max(sizes[name][0] if sizes.get(name) else 0, (floors or {}).get(name, 0)) / size
        for name, size in dense.items()
    }
    alike, most = len(set(keeps.values())) == 1, max(least.values())
    if not alike or most >= 1 > share or (most > share and not equal):
        _reachable(plan, dense, least, share)
        shares = _shifted(dense, keeps, least, share)
        rooms = {name: int(shares[name] * dense[name] + EPSILON) for name in dense}
    else:
        shares = dict.fromkeys(dense, share)  # as it is: a shift would cost it its last bits
        rooms = {name: max(0, int(share * dense[name])) for name in dense}
    if nominal is None or not alike:
        total = plan.total if nominal is None else int(share * sum(dense.values()) + EPSILON)
        bare = {name for name, own in sizes.items() if alike and own and rooms[name] < own[-1]}
        options = {name: own[:-1] or own if name in bare else own for name, own in sizes.items()}
        rooms = _spent(rooms, options, units or [[name] for name in dense], total)
        shares |= {name: rooms[name] / dense[name] for name in dense if sizes.get(name)}
    made = {
        name: Room(rooms[name], None if nominal is None else shares[name], plan.dtype) for name in plan.rooms
    }
    return replace(plan, rooms=made, notes={**plan.notes, **notes})


def _together(
    keeps: Mapping[str, float], units: Sequence[Sequence[str]], dense: Mapping[str, int]
) -> dict[str, float]:
    """Shares with those of a unit's layers at their mean: on their own some would be cut off, others not."""
    found = dict(keeps)
    for unit in units:
        if len({keeps[name] for name in unit}) > 1:
            kept = sum(keeps[name] * dense[name] for name in unit)
            found |= dict.fromkeys(unit, kept / sum(dense[name] for name in unit))
    return found


def _reachable(plan: Plan, dense: Mapping[str, int], least: Mapping[str, float], share: float) -> None:
    """Check that all layers can be as small as the plan needs them together.

    Raises:
        Unreachable: they can not; the nearest budget is rounded down, so that it is within reach.
    """
    whole = sum(dense.values())
    needs, goal = sum(least[name] * dense[name] for name in dense), share * whole
    if needs > goal + EPSILON:
        nearest = plan.budget * (whole - needs - ROUNDING) / (whole - goal)
        raise Unreachable("budget", ceil(needs - EPSILON), int(goal), max(0.0, floor(nearest * 1e4) / 1e4))


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


def _spent(
    rooms: dict[str, int], sizes: Mapping[str, Sequence[int]], units: Sequence[Sequence[str]], total: int
) -> dict[str, int]:
    """Rooms cut down to sizes, and what was cut off spent again on the next size of some units."""
    found = dict(rooms)
    for name, options in sizes.items():
        k = bisect_right(options, rooms[name])
        found[name] = options[k - 1] if k else rooms[name]

    def step(unit: Sequence[str]) -> int:
        """Bytes of the next size of a unit; 0 where there is none."""
        nexts = (s for name in unit for s in sizes[name][bisect_right(sizes[name], found[name]) :][:1])
        return sum(nexts) - sum(found[name] for name in unit if found[name] < sizes[name][-1])

    def lost(unit: Sequence[str]) -> float:
        """How much of its next size the cut took."""
        return sum(rooms[name] - found[name] for name in unit) / max(1, step(unit))

    able = [u for u in units if all(sizes.get(n) and found[n] >= sizes[n][0] for n in u)]
    left, queue = total - sum(found.values()), sorted(able, key=lost, reverse=True)
    while queue:
        again = []
        for unit in queue:
            if 0 < step(unit) <= left:
                left -= step(unit)
                for name in unit:
                    found[name] = sizes[name][
                        min(bisect_right(sizes[name], found[name]), len(sizes[name]) - 1)
                    ]
                again.append(unit)
        queue = again
    return found
