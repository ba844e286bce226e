"""Sweeps: one grid of products, or several grids in one study, for what one can not say.

An experiment lists them under `hydra.sweeper.grids`; what the command line says holds for each. Several
processes share the work by `hydra.sweeper.part=1/2`: part k of n takes every n-th cell from the k-th on.
"""

import itertools
import re
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Lean(Sweeper):
    """Composes before all runs only what can differ in whether it composes: a cell per choice of groups.

    Hydra composes every cell twice, once to see mistakes early and once to run it, a fifth of a second each.
    Whether a config composes hangs on its groups and on the names of its options, not on their values.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's introduction: what loads configs, and what runs jobs."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run the cells; raises what a job raised."""
        batch = self.cells(OverridesParser.create(config_loader=self.hydra_context.config_loader), arguments)
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        self.validate_batch_is_legal(batch)
        done = self.launcher.launch(batch, initial_job_idx=0) if batch else []
        return [job.return_value for job in done]

    @abstractmethod
    def cells(self, parser: OverridesParser, arguments: list[str]) -> list[list[str]]:
        """The cells of a sweep with these arguments, as lists of overrides."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose one cell of each kind; raises what Hydra says of it."""
        groups = set(self.hydra_context.config_loader.list_groups(""))
        kinds = {tuple(_kind(word, groups) for word in cell): cell for cell in batch}
        super().validate_batch_is_legal(list(kinds.values()))


class Products(Lean):
    """One grid: what a sweep has where nothing else is said, by the name of Hydra's own sweeper.

    params: options to values, as one would write them behind `-m`, which may replace them.
    """

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.params = dict(params or {})

    def cells(self, parser: OverridesParser, arguments: list[str]) -> list[list[str]]:
        """Every combination of the values."""
        own = [f"{option}={value}" for option, value in self.params.items()]
        return [list(cell) for cell in _product(parser.parse_overrides([*own, *arguments]))]


PRODUCTS = {"_target_": f"{__name__}.Products", "params": None}
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=PRODUCTS, provider="crunchmark")


class Grids(Lean):
    """All cells of all grids, launched as one batch: mistakes show before anything runs.

    grids: options to values, each as one would write it behind `-m`.
    part: "k/n", which of n equal shares of the cells to run.
    """

    def __init__(self, grids: Sequence[Mapping[str, Any]], part: str = "1/1") -> None:
        self.grids, self.part = grids, str(part)

    def cells(self, parser: OverridesParser, arguments: list[str]) -> list[list[str]]:
        """This part's cells, each once, as lists of overrides.

        Raises:
            HydraException: there is no grid, or part is not k/n with 1 <= k <= n.
        """
        match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", self.part)
        if not match or int(match[1]) > int(match[2]):
            raise HydraException(f"hydra.sweeper.part={self.part!r}; valid: k/n, k at most n, such as 1/2")
        listed = isinstance(self.grids, Sequence) and not isinstance(self.grids, str)
        if not listed or not self.grids or not all(isinstance(grid, Mapping) for grid in self.grids):
            told = f"hydra.sweeper.grids={self.grids!r}" if self.grids else "hydra.sweeper.grids is empty"
            raise HydraException(f"{told}; valid: a list of options and their values")
        found: dict[tuple[str, ...], None] = {}
        for grid in self.grids:
            own = [f"{option}={value}" for option, value in grid.items()]
            found |= dict.fromkeys(_product(parser.parse_overrides([*own, *arguments])))
        return [list(cell) for cell in list(found)[int(match[1]) - 1 :: int(match[2])]]


def batch(parser: OverridesParser, sweeper: DictConfig, arguments: list[str]) -> list[list[str]]:
    """Overrides of every cell that a sweep will have: of its grids, or of the one grid of its arguments."""
    if sweeper.get("grids"):
        return Grids(sweeper.grids, sweeper.part).cells(parser, arguments)
    return Products(sweeper.get("params")).cells(parser, arguments)


def _kind(word: str, groups: Collection[str]) -> str:
    """What of an override decides whether it composes: all of a group's, of an option its name."""
    name = word.partition("=")[0]
    return word if re.split("[/@]", name.lstrip("+~"))[0] in groups else name


def _product(overrides: list[Override]) -> list[tuple[str, ...]]:
    """One tuple per combination of values; of two overrides of one option the later counts."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        swept = override.is_sweep_override()
        told = list(override.sweep_string_iterator()) if swept else [override.get_value_element_as_str()]
        values[key] = [f"{key}={value}" for value in told]
    return list(itertools.product(*values.values()))
