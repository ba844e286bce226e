"""Budgets of their own for attention and MLP, and blocks left dense at either end."""

from collections.abc import Mapping
from dataclasses import dataclass

from crunchmark import Allocator, Plan, Trial, dense_bytes, fraction, goal_of, whole

MLP = ("gate", "up", "down")


@dataclass(frozen=True)
class Components(Allocator):
    """One budget is given, the other follows from the total; both null: layers that are not skipped share it.

    attention, mlp: share of the component's dense weights to remove, as `budget`; null: what is left.
    skip_first, skip_last: blocks that stay dense, so that the others give more.
    """

    attention: float | None = None
    mlp: float | None = None
    skip_first: int = 0
    skip_last: int = 0

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        whole("allocate.skip_first", self.skip_first, least=0)
        whole("allocate.skip_last", self.skip_last, least=0)
        given = {"attention": self.attention, "mlp": self.mlp}
        for name, value in given.items():
            if value is not None:
                fraction(f"allocate.{name}", value, zero=True)
        if None not in given.values():
            raise ValueError(
                f"allocate.attention={self.attention}, allocate.mlp={self.mlp} and budget do not all go "
                "together; valid: one of the two, the other null"
            )

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """Dense blocks first, then the given component, then the rest in equal shares."""
        keeps: dict[str, float] = {}
        inner = trial.blocks[self.skip_first : len(trial.blocks) - self.skip_last]
        names = {name for block in inner for name in block}
        for name in layers:
            budget = self.mlp if trial.roles[name] in MLP else self.attention
            if name not in names:
                keeps[name] = 1.0
            elif budget is not None:
                keeps[name] = 1 - budget
        weights = {name: dense_bytes(shape) for name, shape in layers.items()}
        left = goal_of(trial, layers) - sum(keep * weights[name] for name, keep in keeps.items())
        rest = sum(weights[name] for name in layers if name not in keeps)
        if not rest:
            raise ValueError(f"{self._told()} leaves no other layer; valid: fewer skipped blocks")
        if left > rest:
            raise ValueError(
                f"{self._told()} leaves {left / rest:.1%} of the other layers to keep; valid: at most 100 %"
            )
        return trial.fit({name: keeps.get(name, left / rest) for name in layers}, fixed=tuple(keeps))

    def _told(self) -> str:
        """What was asked for."""
        return (
            f"allocate.attention={self.attention}, mlp={self.mlp}, "
            f"skip_first={self.skip_first}, skip_last={self.skip_last}"
        )
