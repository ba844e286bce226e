"""Allocators on tiny models: the budget met to one step, levels made once, the model left as it was."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from crunchmark.allocation import equal_shares
from crunchmark.artifact import read_manifest
from crunchmark.bench import Bench
from crunchmark.budget import dense_bytes
from crunchmark.cache import Cache
from crunchmark.calib import Calibration
from crunchmark.compress import allocate, compress
from crunchmark.maker import Maker, Nothing
from crunchmark.shared import MEMORY, Shared
from crunchmark.view import View
from methods.allocate.evopress import EvoPress
from methods.allocate.replay import Replay
from methods.rtn import RTN
from methods.slicegpt import SliceGPT
from methods.svd import SVD
from methods.svd_llm import SVDLLM
from methods.wanda import Wanda

HOUSE = Path(__file__).parents[2]
NAMES = sorted(p.stem for p in (HOUSE / "conf/allocate").glob("*.yaml") if p.stem != "replay")
QUICK = {
    "evopress": {"generations": 2, "offspring": 3},
    "strs": {"ratios": [0.4, 0.7], "samples": 2},
    "l_greco": {"shares": [0.3, 0.6], "buckets": 500},
    "ilp": {"levels": 6},
    "components": {"attention": 0.3},
}
METHODS = (SVD, SVDLLM, Wanda, RTN)
OTHERS = ("gpt2", "gpt_neox")
FAMILIES = ("llama_gqa", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS))
TOKENS = torch.randint(3, 64, (6, 12), generator=torch.Generator().manual_seed(2))
CALIB = Calibration(TOKENS, batch=3)
SHARED = Shared()


def allocator(name):
    return instantiate(
        OmegaConf.merge(OmegaConf.load(HOUSE / f"conf/allocate/{name}.yaml"), QUICK.get(name, {}))
    )


def start(tiny, family="llama_gqa", budget=0.4, accounting="bytes"):
    view = View(tiny(family))
    return view, equal_shares(view, budget, accounting, "blocks", torch.bfloat16)


def steps(method, plan, shapes, equal):
    """Bytes to the next size of every layer that is not dense; equal shares leave none of them dense."""
    for name, room in plan.rooms.items():
        full = dense_bytes(shapes[name])
        sizes = [s for s in method.sizes(shapes[name], room) if s < full] + [full] * (not equal)
        assert room.nbytes in sizes, name
        yield from (b - a for a, b in itertools.pairwise(sizes) if a == room.nbytes)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", METHODS)
def test_every_allocator_meets_the_budget_to_one_step(tiny, monkeypatch, kind, family, name):
    asked, whole = [], Bench.fit
    monkeypatch.setattr(Bench, "fit", lambda self, keeps, **n: asked.append(keeps) or whole(self, keeps, **n))
    view, plan = start(tiny, family)
    method, shapes, before = kind(), view.layers(), {k: v.clone() for k, v in view.model.state_dict().items()}
    found = allocate(allocator(name), method, view, plan, CALIB, family, SHARED)
    assert all(torch.equal(v, before[k]) for k, v in view.model.state_dict().items())
    terms = compress(method, view, found, CALIB, family, SHARED)
    left = plan.total - sum(term.nbytes() for term in terms.values())
    if kind is Wanda:  # any size: a layer loses less than a weight of each row, and a byte of rounding
        assert 0 <= left <= sum(2 * out + 1 for out, _ in shapes.values())
    else:
        assert 0 <= left < min(steps(method, found, shapes, name == "uniform"), default=math.inf)
        assert {n: t.nbytes() for n, t in terms.items()} == {n: r.nbytes for n, r in found.rooms.items()}
    if name in ("owl", "dlp", "entropic"):
        kept = sum(keep * dense_bytes(shapes[n]) for n, keep in asked[-1].items())
        assert kept == pytest.approx(plan.total, rel=1e-6, abs=1)


def test_how_many_cases_there_are():
    every = test_every_allocator_meets_the_budget_to_one_step.pytestmark
    marks = {m.args[0]: m.args[1] for m in every if m.name == "parametrize"}
    assert set(marks) == {"name", "family", "kind"}
    assert len(NAMES) == 11
    assert len(marks["name"]) * len(marks["family"]) * len(marks["kind"]) == 132


@pytest.mark.parametrize("name", ["owl", "greedy", "evopress"])
@pytest.mark.parametrize(("kind", "slack"), [(SVD, 0.01), (RTN, 0.5 / 16)])
def test_nominal_budgets_are_met_too(tiny, name, kind, slack):
    view, plan = start(tiny, budget=0.7, accounting="nominal")
    found = allocate(allocator(name), kind(), view, plan, CALIB, "llama_gqa", SHARED)
    terms = compress(kind(), view, found, CALIB, "llama_gqa", SHARED)
    size = {n: out * wide for n, (out, wide) in view.layers().items()}
    kept = sum(terms[n].nominal() * size[n] for n in size) / sum(size.values())
    assert 0.3 - slack < kept <= 0.3 + 1e-9


@pytest.fixture
def made(monkeypatch):
    """Name and bytes of every term a method was asked to make."""
    found, whole = [], Maker.term
    monkeypatch.setattr(
        Maker, "term", lambda m, layer, room: found.append((layer.name, room.nbytes)) or whole(m, layer, room)
    )
    return found


def search(tiny, folder, method=None, seed=0, max_gb=1.0, generations=3, memory=MEMORY):
    view, plan = start(tiny)
    calib = Calibration(TOKENS, batch=3, seed=seed)
    shared = Shared(Cache(folder, max_gb), memory)
    lean = EvoPress(generations=generations, offspring=3)
    return allocate(lean, method or SVD(), view, plan, calib, "llama_gqa", shared), view


def test_a_level_is_made_once_and_found_by_later_processes(tiny, tmp_path, made):
    first, _ = search(tiny, tmp_path)
    count = len(made)
    assert count == len(set(made)) > 10
    again, view = search(tiny, tmp_path)
    assert len(made) == count
    assert again == first
    shared = Shared(Cache(tmp_path))
    compress(SVD(), view, again, CALIB, "llama_gqa", shared)
    assert len(set(made)) == len(made)


def test_a_killed_search_goes_on_from_its_levels(tiny, tmp_path, made, monkeypatch):
    whole, calls = Bench._loss, []

    def dying(self, *args):
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return whole(self, *args)

    monkeypatch.setattr(Bench, "_loss", dying)
    with pytest.raises(KeyboardInterrupt):
        search(tiny, tmp_path)
    assert made
    monkeypatch.setattr(Bench, "_loss", whole)
    search(tiny, tmp_path)
    assert len(made) == len(set(made))


@pytest.mark.parametrize(("memory", "max_gb"), [(MEMORY, 6e-5), (10_000, 1.0)], ids=["memory", "disk"])
def test_levels_that_memory_or_cache_holds_are_made_once(tiny, tmp_path, made, capfd, memory, max_gb):
    search(tiny, tmp_path, max_gb=max_gb, memory=memory, generations=1)
    assert len(made) == len(set(made)) > 10
    sizes = [f.stat().st_size for f in tmp_path.glob("*/*/*") if f.is_file()]
    assert 10_000 < sum(sizes) <= max_gb * 1e9
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_another_seed_is_another_search(tiny, tmp_path):
    plans = [search(tiny, tmp_path / str(k), seed=k, generations=6)[0] for k in (0, 0, 1)]
    assert plans[0] == plans[1]
    assert plans[0].rooms != plans[2].rooms


@pytest.mark.parametrize("family", ["gpt2", "llama_gqa"])
def test_the_model_is_as_it_was_after_an_interrupted_trial(tiny, family):
    view, plan = start(tiny, family)
    before = {k: v.clone() for k, v in view.model.state_dict().items()}
    maker = Maker(SVD(), Nothing(), CALIB, family, SHARED)

    def stopped():
        with Bench(maker, view, plan) as trial:
            assert trial.loss(dict.fromkeys(plan.rooms, 0.3), [0, 1]) > 0
            assert not all(torch.equal(v, before[k]) for k, v in view.model.state_dict().items())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert all(torch.equal(v, before[k]) for k, v in view.model.state_dict().items())


def test_a_layer_that_can_not_be_that_small_has_no_finite_loss(tiny):
    view, plan = start(tiny)
    with Bench(Maker(SVD(), Nothing(), CALIB, "llama_gqa", SHARED), view, plan) as trial:
        name = next(iter(plan.rooms))
        assert trial.loss({name: 0.001}, [0]) == float("inf")
        assert trial.loss({}, [0]) == pytest.approx(0, abs=1e-6)


def test_a_plan_used_again_gives_the_same_bytes(make, runner):
    lean = EvoPress(generations=1, offspring=2)
    first = make(SVD(), 0.3, allocate=lean)
    row = runner.run(first)[-1]
    path = runner.store.cell(first.study, first.key) / "cell.json"
    second = make(SVD(), 0.3, allocate=Replay(str(path)))
    again = runner.run(second)[-1]
    assert first.key != second.key
    assert read_manifest(Path(row["artifact"]))["sha256"] == read_manifest(Path(again["artifact"]))["sha256"]
    with pytest.raises(ValueError, match=r"its plan has budget 0\.3; valid here: 0\.4"):
        runner.run(make(SVD(), 0.4, allocate=Replay(str(path))))


def test_a_plan_of_other_shapes_is_one_line(tiny, tmp_path):
    view, plan = start(tiny)
    data = plan.to_json()
    name = next(iter(data["shapes"]))
    for change, told in (
        (lambda: data["shapes"].update({name: [1, 2]}), "shape of"),
        (lambda: data["rooms"].pop(name), "layer"),
    ):
        change()
        (tmp_path / "plan.json").write_text(json.dumps(data))
        with pytest.raises(ValueError, match=rf"its plan has {told} {name}"):
            allocate(Replay(str(tmp_path / "plan.json")), SVD(), view, plan, CALIB, "x", SHARED)


def test_a_method_that_allocates_itself_is_skipped_with_its_reason(make, runner):
    row = runner.run(make(SliceGPT(), 0.3, allocate=EvoPress()))[-1]
    assert row["state"] == "skipped"
    assert row["reason"] == "SliceGPT decides itself what to take where; valid: allocate=uniform"
