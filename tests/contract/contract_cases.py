"""Every method of conf/method on every tiny family, and what came out, computed once per process."""

import copy
import hashlib
import importlib.util
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from crunchmark import artifact
from crunchmark.allocation import Uniform, equal_shares
from crunchmark.budget import Plan, Room, dense_bytes
from crunchmark.calib import Calibration
from crunchmark.compress import allocate, compress
from crunchmark.edits import settle
from crunchmark.fisher import Fisher, gather
from crunchmark.interface import Layer, Method, ModelMethod
from crunchmark.shared import KINDS, Shared
from crunchmark.terms import Term
from crunchmark.view import View
from crunchmark.walk import statistics

ROOT = Path(__file__).parents[2]
YAMLS = {path.stem: path for path in sorted((ROOT / "conf/method").glob("*.yaml"))}
SHARED = Shared()
USUAL = 0.4  # what most promises are tried at
BUDGETS = (0.1, 0.4, 0.58)
LOWER = (0.7, 0.76, 0.82)  # where 4 bits of everything are too many
STORED = torch.bfloat16
TOKENS = torch.randint(3, 64, (8, 16), generator=torch.Generator().manual_seed(2))
TEMP = tempfile.TemporaryDirectory(prefix="contract-")


def _conftest() -> Any:
    spec = importlib.util.spec_from_file_location("tiny_models", ROOT / "tests/conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = _conftest()
FAMILIES = list(TINY.BUILDERS)


@dataclass(frozen=True)
class Case:
    """A method as its yaml makes it, with some knobs changed, on a family."""

    method: str
    family: str
    knobs: tuple[tuple[str, Any], ...] = ()

    def __str__(self):
        return "-".join([self.method, *(f"{k}={v}" for k, v in self.knobs), self.family])

    def make(self) -> Method | ModelMethod:
        return made(self.method, self.knobs)

    def calibration(self, seed=0) -> Calibration:
        inputs = OmegaConf.select(config(self.method), "calib.inputs", default="dense")
        return Calibration(TOKENS, inputs, batch=4, seed=seed)


FEWER = {"gqsa": (("bqpo_steps", 4), ("e2e_steps", 4))}  # two passes of training: no promise is about more


@cache
def config(method):
    return OmegaConf.load(YAMLS[method])


@cache
def made(method, knobs) -> Method | ModelMethod:
    """One for all families: methods are frozen."""
    spec = copy.deepcopy(config(method)["method"])
    for knob, value in (*FEWER.get(method, ()), *knobs):
        OmegaConf.update(spec, knob, list(value) if isinstance(value, tuple) else value)
    return instantiate(spec)


BASE = [Case(method, family) for method in YAMLS for family in FAMILIES]
EXTRA_FAMILIES = ("llama_gqa", "gpt2")  # gated, GQA, RMSNorm; fused, Conv1D, tied, LayerNorm
VARIANTS = [
    ("magnitude", (("run", 4),)),
    ("wanda", (("run", 4),)),
    ("sparsegpt", (("run", 4),)),
    ("sparsegpt", (("block", 12),)),
    ("sparsegpt", (("bits", 4),)),
    ("sparsegpt", (("bits", 4), ("run", 4))),
    ("sparsegpt_rtn", (("sparsity", 0.5), ("bits", None))),
    ("wanda_gptq", (("first.run", 4),)),
    ("svd", (("align", 4),)),
    ("svd_llm", (("align", 4),)),
    ("asvd", (("alpha", 1.0), ("align", 4))),
    ("afm", (("align", 4),)),
    ("welore", (("min_ratio", 0.4999),)),
    ("rtn", (("sym", True),)),
    ("rtn", (("group", 16),)),
    ("gptq", (("sym", True),)),
    ("gptq", (("act_order", True),)),
    ("gptq", (("group", 16), ("act_order", True))),
    ("awq", (("sym", True), ("group", 16))),
    ("hqq", (("group", 16),)),
    ("slicegpt", (("orientation", "random"), ("align", 1))),
    ("compactifai", (("cores", 3),)),
    ("compactifai", (("exclude", ("down",)),)),
    ("vq", (("iterations", 1),)),
    ("lq_lora", (("fisher", True),)),
    ("lq_lora", (("rank", 0),)),
    ("int2_1", (("bits", 3), ("group", 16))),
    ("lr2vq", (("dims", 1),)),
    ("gqsa", (("bits", 8), ("group", 8), ("obs_init", True))),
    ("dsformer", (("length", 2),)),
    ("shortgpt", (("score", "window"),)),
    ("shortgpt", (("score", "perplexity"),)),
    ("flap", (("structure", "UL-UM"),)),
    ("flap", (("compensate", False),)),
    ("modegpt", (("eps", 10.0),)),
    ("flap", (("structure", "AL-MM"),)),
]
EXTRA = [Case(m, family, knobs) for (m, knobs), family in zip(VARIANTS, cycle(EXTRA_FAMILIES), strict=False)]
COMBINED = {"sparsegpt_rtn", "wanda_gptq"}  # notes of one module that holds two others
SKIPPED = {
    ("slicegpt", "gemma3_text"): "a rotation of the residual stream changes the model",
    ("modegpt", "gemma3_text"): "gemma3_text norms queries and keys per head",
    ("modegpt", "qwen3"): "qwen3 norms queries and keys per head",
}
WORKING = [c for c in BASE + EXTRA if c.method != "dense" and (c.method, c.family) not in SKIPPED]
LAYERWISE = [c for c in WORKING if isinstance(c.make(), Method)]
FEW = [
    c for c in WORKING if c.family in EXTRA_FAMILIES
]  # where what a promise costs is not worth all families
IN_ROOMS = [c for c in WORKING if isinstance(c.make(), Method) or c.make().rooms]  # a term per layer
DEPTHS = {"shortgpt": 6}  # whose steps are blocks


class Watched(Method):
    """A method, and whether it left what it was given as it was."""

    def __init__(self, inner):
        self.inner, self.needs, self.touched = inner, inner.needs, []
        self.random, self.leaves = inner.random, inner.leaves

    def compress(self, layer, room):
        given = [layer.weight, *(s.value for s in layer.stats.values())]
        before = [t.clone() for t in given]
        term = self.inner.compress(layer, room)
        now = [layer.weight, *(s.value for s in layer.stats.values())]
        if not all(torch.equal(a, b) for a, b in zip(before, now, strict=True)):
            self.touched.append(layer.name)
        return term


@dataclass
class Outcome:
    model: Any
    view: View
    plan: Plan
    terms: dict[str, Term]
    shapes: dict[str, tuple[int, int]]  # of the dense model
    touched: list[str]

    def logits(self):
        return logits(self.model)

    @cached_property
    def folder(self) -> Path:
        made = Path(tempfile.mkdtemp(dir=TEMP.name))
        artifact.write(made, self.view, self.terms, STORED, {"plan": self.plan.to_json()})
        return made

    @property
    def digest(self):
        return hashlib.sha256((self.folder / artifact.WEIGHTS).read_bytes()).hexdigest()


@torch.no_grad()
def logits(model):
    return model(TOKENS, use_cache=False).logits


def dense_model(case):
    """As a 16-bit checkpoint gives it: float32 with every weight exact in the stored dtype."""
    return copy.deepcopy(_settled(case.family, DEPTHS.get(case.method, 2)))


@cache
def _settled(family, depth):
    model = TINY.build(family, **TINY.deeper(family, depth))
    settle(model, STORED)
    return model


def run(case, budget, accounting="bytes", scope="blocks", seed=0) -> Outcome:
    model, method = dense_model(case), case.make()
    view = View(model)
    shapes = view.layers()
    plan = equal_shares(view, budget, accounting, scope, STORED)
    given = (case.calibration(seed), f"{case.family} {len(view.blocks)}", SHARED)
    plan = allocate(Uniform(), method, view, plan, *given)
    watched = Watched(method) if isinstance(method, Method) else method
    terms = compress(watched, view, plan, *given)
    return Outcome(model, view, plan, terms, shapes, getattr(watched, "touched", []))


once = cache(run)


def forget():
    """Drop what cells share, so that a second run computes everything again."""
    SHARED.clear()


@cache
def layers(family) -> list[Layer]:
    """The layers of the first block, in float32 so that no two weights tie, with the dense statistics."""
    view = View(TINY.build(family))
    calib, found = Calibration(TOKENS, batch=4), {}
    gather(view, calib, lambda i, fishers: found.update({n: {Fisher: f} for n, f in fishers.items()}))
    for name, stats in statistics(view, calib, KINDS).items():
        found[name].update(stats)
    return [Layer(s.name, s.weight(), found[s.name]) for s in view.sites(0)]


EDIT_STEPS = {  # share of the weights that one step of a whole-model method takes
    "slicegpt": 1e-12,
    "shortgpt": 1 / 6,
    "wanda_sp": 0.01,  # a channel
    "flap": 0.01,
    "modegpt": 0.02,  # a rotary pair
}
LOW_RANK = {"LowRank", "Shift"}  # leaves of terms whose steps are ranks
SOLVED = {*LOW_RANK, "Segments"}  # leaves of what is solved for from all rows at once


def leaves(term):
    return [leaf for part in getattr(term, "terms", ()) for leaf in leaves(part)] or [type(term).__name__]


def rounds_what_is_kept(case):
    """Whether its terms are sparse and quantised."""
    return case.method in COMBINED or (case.method == "sparsegpt" and "bits" in dict(case.knobs))


def budgets(case):
    """Budgets at which the case has something to give up: one where its family is one of many."""
    every = LOWER if rounds_what_is_kept(case) else BUDGETS
    return every if case.family in EXTRA_FAMILIES else (USUAL,)


def coarsest(case, shape):
    """The widest gap between two sizes a layer can have, as a share of it."""
    sizes = case.make().sizes(shape, Room(0, None, STORED))
    return max(b - a for a, b in pairwise(sizes)) / dense_bytes(shape)


def kinds(case):
    return {leaf for t in once(case, USUAL).terms.values() for leaf in leaves(t)}
