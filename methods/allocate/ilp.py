"""LQ-LoRA's integer programme (ICLR 2024, arXiv:2311.12023): one setting for every layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from crunchmark import (
    LOST,
    Allocator,
    Gram,
    Layer,
    Level,
    Plan,
    Stat,
    Trial,
    assign,
    fisher_norm,
    flag,
    goal_of,
    levels,
    one_of,
    positive,
    reaching,
    whole,
)

Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class ILP(Allocator):
    """Least sum of squared errors at the budget, one of a layer's sizes for each.

    It is never more than that of the best equal shares among the sizes tried.
    of: whose errors. outputs: tr((W-Q) C (W-Q)^T), C the Gram of the inputs, the metric that all allocators
    share. weights, as in the paper: |sqrt(F) * (W-Q)|^2, F ones or the method's Fisher information.
    levels: sizes of a layer that are tried at most; at even shares where it has more, or any.
    relative: each error as a share of the layer's own outputs or weights, as in L-GreCo; false: as it is.
    seconds: the solver may take; how far from optimal it then is stands in the plan's notes.
    """

    of: str = "outputs"
    levels: int = 40
    relative: bool = False
    seconds: float = 60.0

    looks = True
    tries = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        one_of("allocate.of", self.of, LOST)
        whole("allocate.levels", self.levels, least=2)
        flag("allocate.relative", self.relative)
        positive("allocate.seconds", self.seconds)

    @property
    def needs(self) -> tuple[type[Stat], ...]:  # type: ignore[override]
        """Of the inputs, for errors of outputs."""
        return (Gram,) if self.of == "outputs" else ()

    def allocate(self, trial: Trial, layers: Shapes, total: int) -> Plan:
        """Costs and sizes of every level of every unit, then the programme."""
        goal = goal_of(trial, layers)
        if goal <= 0:  # nothing is left for them: equal shares say what there would have to be
            return trial.fit(dict.fromkeys(layers, trial.share))
        energies = {name: 1.0 if self.relative else self._energy(trial.layer(name)) for name in layers}
        options, costs = [], []
        for unit in trial.units:
            tried = [
                (self._cost(trial, level, energies), level) for level in self._levels(trial, layers, unit)
            ]
            options.append([level for cost, level in tried if isfinite(cost)])
            costs.append([cost for cost, _ in tried if isfinite(cost)])
        sizes = [[level.nbytes for level in unit] for unit in options]
        found = assign(costs, sizes, goal, self.seconds)
        if found is None:  # the smallest sizes are too much: equal shares say by how much
            return trial.fit(dict.fromkeys(layers, trial.share))
        chosen = (unit[k].keeps for unit, k in zip(options, found.picks, strict=True))
        keeps = {name: keep for level in chosen for name, keep in level.items()}
        return trial.fit(keeps, cost=found.cost, gap=found.gap)

    def _levels(self, trial: Trial, layers: Shapes, unit: Sequence[str]) -> list[Level]:
        """All sizes of a unit where these are few, else even shares and the budget's own."""
        own = [trial.sizes(name) for name in unit]
        found = sorted({share for sizes in own for share in sizes or ()})
        if len(found) > self.levels or None in own:
            found = sorted({trial.share, *(k / self.levels for k in range(1, self.levels))})
        return levels(trial, layers, unit, reaching(found, trial))

    def _energy(self, layer: Layer) -> float:
        """What an error of 1 stands for: tr(W C W^T), or |sqrt(F) * W|^2."""
        weight = layer.weight.double()
        if self.of == "weights":
            return fisher_norm(layer, weight)
        return float(((weight @ layer[Gram].value) * weight).sum())

    def _cost(self, trial: Trial, level: Level, energies: Mapping[str, float]) -> float:
        """Of a unit at a level."""
        return sum(trial.error(name, keep, self.of) * energies[name] for name, keep in level.keeps.items())
