"""One point of the grid, and everything its identity is made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crunchmark.allocation import ACCOUNTINGS, SCOPES, Uniform
from crunchmark.budget import check_budget
from crunchmark.cache import Cache, source_of
from crunchmark.calib import INPUTS, Calibration, Source, draw
from crunchmark.checks import flag, folder_name, one_of, whole
from crunchmark.interface import Allocator, Compensator, Keep, Method, ModelMethod
from crunchmark.keys import key_of
from crunchmark.machine import check_device
from crunchmark.maker import Nothing
from crunchmark.models import DTYPES, ModelSpec
from crunchmark.progress import Event, named
from crunchmark.seeds import NUMERICS
from crunchmark.task import Task
from crunchmark.tensorfile import damaged

TOKENS = "tokens.npy"
EXPECTED = {"task", "metric", "dense", "values", "tolerance", "source", "status"}


@dataclass(frozen=True)
class Draw:
    """Which calibration tokens, and whose outputs the layers see."""

    source: Source
    n: int = 128
    length: int = 256
    seed: int = 0
    inputs: str = "dense"
    batch: int = 4
    spill: bool = False

    def __post_init__(self) -> None:
        """Check what a config can get wrong, also where the tokens are in the cache already.

        Raises:
            ValueError: n or length is below 1, or seed below 0.
        """
        whole("calib.n", self.n)
        whole("calib.length", self.length)
        whole("calib.seed", self.seed, least=0)
        whole("calib.batch", self.batch)
        flag("calib.spill", self.spill)
        one_of("calib.inputs", self.inputs, INPUTS)

    def identity(self) -> dict[str, Any]:
        """What decides the tokens."""
        return {"source": self.source.identity(), "n": self.n, "length": self.length, "seed": self.seed}

    def described(self) -> dict[str, Any]:
        """The fields a reader of a table may tell two cells apart by; the seed has a column of its own."""
        return asdict(self.source) | {"n": self.n, "length": self.length, "inputs": self.inputs}


@dataclass(frozen=True)
class Cell:
    """One point of the grid; `config` is the resolved text it was made from."""

    study: str
    model: ModelSpec
    method: Method | ModelMethod
    draw: Draw
    tasks: Mapping[str, Task]
    knobs: Mapping[str, Any]  # the method as the config writes it
    budget: float = 0.0
    accounting: str = "bytes"
    scope: str = "blocks"
    device: str = "cpu"
    label: str = "dense"
    allocate: Allocator = field(default_factory=Uniform)
    compensate: Compensator = field(default_factory=Nothing)
    stages: Mapping[str, Any] = field(default_factory=dict)  # allocate, compensate as the config writes them
    expected: Mapping[str, Any] | None = None  # what a paper got, for the record: no part of any key

    @property
    def calibrated(self) -> bool:
        """Whether the method looks at calibration tokens at all."""
        looks = isinstance(self.method, ModelMethod) or bool(self.method.needs)
        return looks or bool(self.compensate.needs) or self.allocate.looks or bool(self.allocate.needs)

    def calibration(self, tokenizer: Any, cache: Cache) -> Calibration:
        """The tokens, drawn once per source, tokenizer, n, length and seed; none for a data-free method."""
        how, ids = self.draw, torch.empty(0, 0, dtype=torch.int64)
        if self.calibrated and self.budget:
            drawn = how.identity() | {"model": self.model.fingerprint, "numerics": NUMERICS}

            def make(temp: Path) -> None:
                tokens = draw(how.source, tokenizer, how.n, how.length, how.seed)
                np.save(temp / TOKENS, tokens.ids.numpy())

            with cache.folder("tokens", key_of(**drawn), make) as folder:
                ids = _tokens(folder / TOKENS)
        return Calibration(ids, how.inputs, how.batch, how.seed, self.device, how.spill)

    def dense(self) -> "Cell":
        """The parent: the same model with nothing removed."""
        parent = {"method": Keep(), "knobs": {}, "budget": 0.0, "label": "dense"}
        parent |= {"allocate": Uniform(), "compensate": Nothing(), "stages": {}}
        return replace(self, **parent, accounting="bytes", scope="blocks")  # type: ignore[arg-type]

    @property
    def event(self) -> Event:
        """The cell as progress names it."""
        stages = tuple(named(spec) for spec in self.stages.values())
        return Event(self.study, self.key, self.model.title, self.label, stages, self.budget)

    @property
    def config(self) -> dict[str, Any]:
        """What tables tell cells of one method and budget apart by."""
        told: dict[str, Any] = {"method": self.knobs, "device": self.device}
        told["model"] = {"compute": self.model.compute, "dtype": self.model.dtype}
        told |= self.stages
        return told | ({"calib": self.draw.described()} if self.calibrated else {})

    @cached_property
    def weights_key(self) -> str:
        """Everything that decides the compressed weights."""
        base = {"model": self.model.fingerprint, "dtype": str(self.model.storage), "numerics": NUMERICS}
        if self.budget == 0:
            return key_of(**base)
        seeded = isinstance(self.method, Method) and self.method.random
        return key_of(
            **base,
            method=self.knobs,
            budget=self.budget,
            accounting=self.accounting,
            scope=self.scope,
            allocate=repr(self.allocate),
            source=source_of(self.method),
            **self._stages,
            data=(self.draw.identity(), self.draw.inputs, self.draw.batch) if self.calibrated else None,
            device=self.device.partition(":")[0],
            seed=self.draw.seed if seeded else None,
        )

    @property
    def _stages(self) -> dict[str, Any]:
        """The stages around the method, where they do anything."""
        used: dict[str, Any] = {}
        if self.allocate != Uniform():
            used["allocator"] = source_of(self.allocate)
        if self.compensate != Nothing():
            used["compensate"] = (repr(self.compensate), source_of(self.compensate))
        return used

    @cached_property
    def key(self) -> str:
        """Everything that decides the scores, but for the tasks: the weights, and where and how they run."""
        return key_of(
            weights=self.weights_key, compute=self.model.compute, device=self.device.partition(":")[0]
        )


def cell_from(
    config: Mapping[str, Any],
    method: Method | ModelMethod,
    tasks: Mapping[str, Task],
    allocate: Allocator,
    compensate: Compensator,
) -> Cell:
    """The cell of a resolved config and the objects made from it.

    Raises:
        ValueError: a field is out of range; names it.
    """
    budget, label = check_budget(config["budget"]), config["label"]
    folder_name("study", config["study"])
    one_of("accounting", config["accounting"], ACCOUNTINGS)
    one_of("scope", config["scope"], SCOPES)
    one_of("model.compute", config["model"]["compute"], DTYPES)
    if not method.parent and (not label or label == "dense"):
        raise ValueError(f"label={label!r} is empty or the parent's; valid: a name for the method in tables")
    calib, names = dict(config["calib"]), ("n", "length", "seed", "inputs", "batch", "spill")
    how = {k: calib.pop(k) for k in names if k in calib}
    return Cell(
        study=config["study"],
        model=ModelSpec(**config["model"]),
        method=method,
        draw=Draw(Source(**calib), **how),
        tasks=tasks,
        knobs=config["method"],
        budget=0.0 if method.parent else budget,
        accounting=config["accounting"],
        scope=config["scope"],
        device=str(check_device(config["device"])),
        label="dense" if method.parent else str(label),
        expected=check_expected(config.get("expected")),
        allocate=Uniform() if method.parent else allocate,
        compensate=Nothing() if method.parent else compensate,
        stages={} if method.parent else _told(config, allocate=allocate, compensate=compensate),
    )


def check_expected(expected: Any) -> Mapping[str, Any] | None:
    """What a paper got, or None.

    Raises:
        ValueError: it is no mapping with the fields that `analysis.reproduce` reads.
    """
    if expected is None or (isinstance(expected, Mapping) and set(expected) == EXPECTED):
        return expected
    raise ValueError(f"expected={expected!r} is incomplete; valid: null, or {', '.join(sorted(EXPECTED))}")


def _told(config: Mapping[str, Any], **stages: Any) -> dict[str, Any]:
    """The config of the stages that do anything."""
    return {name: config[name] for name, stage in stages.items() if stage not in (Uniform(), Nothing())}


def _tokens(path: Path) -> Tensor:
    """Token ids from the cache."""
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise damaged(path, error) from None
