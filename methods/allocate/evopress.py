"""EvoPress (ICML 2025, arXiv:2410.14649): an evolutionary search on the model's own outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median

from crunchmark import (
    Allocator,
    Level,
    Plan,
    Trial,
    dense_bytes,
    goal_of,
    levels,
    one_of,
    seed_of,
    several,
    whole,
)

State = tuple[int, ...]  # level of each unit
TRIES = 20  # draws for one offspring that is new, before fewer are made


@dataclass(frozen=True)
class Ladders:
    """The levels of all units, and what they may cost together."""

    units: Sequence[Sequence[Level]]
    goal: float

    def nbytes(self, state: Sequence[int]) -> float:
        """What a state costs."""
        return sum(unit[k].nbytes for unit, k in zip(self.units, state, strict=True))

    def keeps(self, state: Sequence[int]) -> dict[str, float]:
        """Share by layer."""
        at = (unit[k].keeps for unit, k in zip(self.units, state, strict=True))
        return {name: keep for keeps in at for name, keep in keeps.items()}

    def fits(self, state: Sequence[int]) -> bool:
        """Whether a state meets the budget."""
        return self.nbytes(state) <= self.goal + 1e-6

    def settled(self, state: Sequence[int], raised: Sequence[int], dice: Random) -> State | None:
        """Others than the raised go down until the budget holds, and what is then left goes to others again.

        None: nothing can go down any more.
        """
        now, lowered = list(state), set()
        while not self.fits(now):
            able = [u for u, k in enumerate(now) if k > 0 and u not in raised]
            if not able:
                return None
            unit = dice.choice(able)
            now[unit] -= 1
            lowered.add(unit)
        for unit in dice.sample(range(len(now)), len(now)):
            up = [k + (u == unit) for u, k in enumerate(now)]
            if unit not in lowered and now[unit] + 1 < len(self.units[unit]) and self.fits(up):
                now = up
        return tuple(now)


@dataclass(frozen=True)
class EvoPress(Allocator):
    """(1 + offspring) search: some units go a level up, others down; the fittest is the next parent.

    generations, offspring: of the search. samples: calibration sequences drawn in each stage of a selection.
    survivors: what each stage leaves of the candidates; before the last one the parent joins them.
    flips: units that go up are min(U, U), U from 1 to flips. steps: levels between equal shares and half way
    to none or all of a median layer. fitness: "kl" to the dense outputs, or "nll" of the text.
    """

    generations: int = 40
    offspring: int = 16
    samples: Sequence[int] = field(default=(2, 16))
    survivors: Sequence[int] = field(default=(2, 1))
    flips: int = 3
    steps: int = 4
    fitness: str = "kl"

    looks = True
    tries = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong; lists of a config are kept as tuples."""
        for name in ("generations", "offspring", "flips", "steps"):
            whole(f"allocate.{name}", vars(self)[name], least=int(name != "generations"))
        for name in ("samples", "survivors"):
            object.__setattr__(self, name, several(f"allocate.{name}", vars(self)[name]))
            for value in vars(self)[name]:
                whole(f"allocate.{name}", value)
        stages, paired = [self.offspring, *self.survivors], len(self.samples) == len(self.survivors)
        if not self.samples or not paired or stages[-1] != 1 or stages != sorted(stages, reverse=True):
            raise ValueError(
                f"allocate.samples={list(self.samples)}, allocate.survivors={stages[1:]} of "
                f"allocate.offspring={self.offspring}; valid: as many of one as of the other, "
                "the last 1, in no stage more than before it"
            )
        one_of("allocate.fitness", self.fitness, ("kl", "nll"))

    def allocate(self, trial: Trial, layers: Mapping[str, tuple[int, int]], total: int) -> Plan:
        """Search from equal shares on."""
        dice = Random(seed_of(trial.seed, "evopress"))
        ladders = Ladders(list(self._levels(trial, layers)), goal_of(trial, layers))
        parent = ladders.settled(self._equal(ladders, trial.share), (), dice)
        if parent is None:  # no plan is small enough: compressing in equal shares says by how much
            return trial.fit(dict.fromkeys(layers, trial.share))
        for _ in range(self.generations):
            parent = self._select(trial, ladders, self._offspring(ladders, parent, dice), parent, dice)
        return trial.fit(ladders.keeps(parent), generations=self.generations)

    def _levels(self, trial: Trial, layers: Mapping[str, tuple[int, int]]) -> Sequence[Sequence[Level]]:
        """Per unit shares around the equal one, the same number of bytes apart in all of them."""
        share = trial.share
        step = min(share, 1 - share) / 2 / self.steps * median(dense_bytes(s) for s in layers.values())
        found = []
        for unit in trial.units:
            apart = step / sum(dense_bytes(layers[name]) for name in unit)
            down, up = int(share / apart), int((1 - share) / apart)
            shares = (share + k * apart for k in range(-down, up + 1))
            found.append(levels(trial, layers, unit, (s for s in shares if s > 0)))
        return found

    def _equal(self, ladders: Ladders, share: float) -> list[int]:
        """The highest level of each unit within an equal share; the lowest where none is."""
        state = []
        for unit in ladders.units:
            most = share * unit[-1].nbytes + 1e-6
            state.append(max(0, sum(level.nbytes <= most for level in unit) - 1))
        return state

    def _offspring(self, ladders: Ladders, parent: State, dice: Random) -> list[State]:
        """Distinct mutants that meet the budget."""
        found: dict[State, None] = {}
        for _ in range(TRIES * self.offspring):
            if len(found) == self.offspring:
                break
            count = min(dice.randint(1, self.flips), dice.randint(1, self.flips))
            able = [u for u, k in enumerate(parent) if k + 1 < len(ladders.units[u])]
            raised = dice.sample(able, min(count, len(able)))
            up = [k + (u in raised) for u, k in enumerate(parent)]
            mutant = ladders.settled(up, raised, dice)
            if mutant is not None and mutant != parent:
                found[mutant] = None
        return list(found)

    def _select(
        self, trial: Trial, ladders: Ladders, candidates: list[State], parent: State, dice: Random
    ) -> State:
        """Stage by stage fewer candidates on more tokens, the same for all of a stage."""
        for stage, (count, left) in enumerate(zip(self.samples, self.survivors, strict=True), start=1):
            if stage == len(self.samples):
                candidates = [*candidates, parent]
            drawn = sorted(dice.sample(range(trial.samples), min(count, trial.samples)))
            losses = {state: trial.loss(ladders.keeps(state), drawn, self.fitness) for state in candidates}
            candidates = sorted(candidates, key=losses.__getitem__)[:left]
        return candidates[0]
