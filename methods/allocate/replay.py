"""A plan that was saved with a cell or an artifact, used again room by room."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from crunchmark import Allocator, Plan, Trial, saved_plan


@dataclass(frozen=True)
class Replay(Allocator):
    """The same rooms for the same layers, whatever method fills them.

    path: a cell.json of a study, a manifest.json of an artifact, or the plan alone.
    """

    path: str | None = None
    saved: Plan = field(init=False)  # read now, so that its content is part of what this allocator is

    def __post_init__(self) -> None:
        """Read the file."""
        object.__setattr__(self, "saved", saved_plan(self.path))

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """The saved rooms, where everything they depend on is as it was.

        Raises:
            ValueError: budget, accounting, scope, dtype, names or shapes are others.
        """
        saved, now = self.saved, trial.fit(dict.fromkeys(layers, trial.share))
        asked = (now.budget, now.accounting, now.scope, str(now.dtype))
        made = (saved.budget, saved.accounting, saved.scope, str(saved.dtype))
        for name, old, new in zip(("budget", "accounting", "scope", "dtype"), made, asked, strict=True):
            self._same(name, old, new)
        for name in (*layers, *saved.rooms):
            self._same(f"layer {name}", name in saved.rooms, name in layers)
        for name, shape in saved.shapes.items():
            self._same(f"shape of {name}", shape, layers[name])
        rooms = {name: saved.rooms[name] for name in layers}
        return replace(now, rooms=rooms, notes={**saved.notes, "replayed": True})

    def _same(self, what: str, old: object, new: object) -> None:
        if old != new:
            raise ValueError(f"allocate.path={self.path!r}: its plan has {what} {old!r}; valid here: {new!r}")
