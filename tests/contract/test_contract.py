"""What every method promises, checked on every family."""

import json
import math
import re
from contextlib import nullcontext

import pytest
import torch
from contract_cases import (
    BASE,
    BUDGETS,
    COMBINED,
    EDIT_STEPS,
    EXTRA,
    EXTRA_FAMILIES,
    FAMILIES,
    FEW,
    IN_ROOMS,
    LAYERWISE,
    ROOT,
    SKIPPED,
    SOLVED,
    STORED,
    USUAL,
    VARIANTS,
    WORKING,
    YAMLS,
    Case,
    budgets,
    coarsest,
    config,
    dense_model,
    forget,
    kinds,
    leaves,
    logits,
    once,
    rounds_what_is_kept,
    run,
)
from hydra.utils import get_class, instantiate
from safetensors import safe_open

import crunchmark
from crunchmark import artifact
from crunchmark.budget import Room, Unreachable, dense_bytes
from crunchmark.interface import Method, Skip
from crunchmark.terms import unpack

each = pytest.mark.parametrize("case", WORKING, ids=str)
few = pytest.mark.parametrize("case", FEW, ids=str)
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def test_the_grid_is_whole():
    modules = {p.stem for p in (ROOT / "methods").glob("*.py")} - {"__init__"}
    assert set(YAMLS) == modules - {"pipeline"} | COMBINED
    assert len(YAMLS) == 31
    assert len(FAMILIES) == 12
    assert len(set(BASE)) == len(BASE) == len(YAMLS) * 12
    assert len(set(EXTRA)) == len(EXTRA) == len(VARIANTS) == 36
    assert len(WORKING) == len(BASE) + len(EXTRA) - 12 - len(SKIPPED)  # the dense parent
    assert len(FEW) == (len(YAMLS) - 1) * len(EXTRA_FAMILIES) + len(EXTRA)


def told(made):
    """A yaml that says every knob."""
    spec = {"_target_": f"{type(made).__module__}.{type(made).__qualname__}"}
    for knob in made.__dataclass_fields__:
        value = getattr(made, knob)
        spec[knob] = told(value) if isinstance(value, Method) else value
    return spec


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_module_and_docstring_agree(name):
    text = YAMLS[name].read_text()
    spec = dict(config(name)["method"])
    made, kind = instantiate(spec), get_class(spec["_target_"])
    module = (ROOT / f"{kind.__module__.replace('.', '/')}.py").read_text()
    assert kind.__module__ == ("methods.pipeline" if name in COMBINED else f"methods.{name}")
    assert len(text.splitlines()) <= 1 + 10  # the package line is Hydra's
    assert spec == told(made)  # all knobs
    if name not in COMBINED:
        assert made == kind()  # with their defaults
    cited = set(ARXIV.findall(module.split('"""')[1]))
    assert cited <= set(ARXIV.findall(text))
    assert bool(cited) == (name not in {"dense", "hqq"})  # the parent is no paper's; HQQ is a web page


@pytest.mark.slow
@pytest.mark.parametrize("case", BASE, ids=str)
def test_skips_are_these(case):
    """At budget 0 and above; the parent has but budget 0."""
    for budget in (0.0, USUAL):
        expected = nullcontext()
        if (case.method, budget) == ("dense", USUAL):
            expected = pytest.raises(Unreachable)
        if (case.method, case.family) in SKIPPED:
            expected = pytest.raises(Skip, match=SKIPPED[case.method, case.family])
        with expected:
            once(case, budget)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parent_reaches_budget_zero_alone(family):
    for budget in BUDGETS:
        with pytest.raises(Unreachable) as caught:
            run(Case("dense", family), budget)
        assert caught.value.nearest == 0.0
    assert torch.equal(once(Case("dense", family), 0.0).logits(), logits(dense_model(Case("dense", family))))


@each
def test_full_room_loses_nothing(case):
    got = once(case, 0.0)
    want = logits(dense_model(case))
    assert torch.equal(got.logits(), want)
    assert torch.equal(logits(crunchmark.load(got.folder, packed=False)), want)


@each
def test_packs_within_the_room(case):
    sizes = []
    for budget in budgets(case):
        got = once(case, budget)
        size = artifact.sizes(got.folder)
        assert size["scope_bytes"] <= got.plan.total
        spent = artifact.spent(artifact.read_manifest(got.folder))
        assert ("" in spent) == bool(got.view.added())
        assert all(part > 0 for parts in spent.values() for part in parts.values())
        sizes.append(size["scope_bytes"])
        dense = sum(dense_bytes(s) for s in got.shapes.values())
        assert got.plan.total == int((1 - budget) * dense)
        assert set(got.terms) == (set(got.shapes) if case in IN_ROOMS else set())
        assert got.touched == []
        for name, term in got.terms.items():
            assert term.nbytes() <= got.plan.rooms[name].nbytes
            assert term.shape == got.shapes[name]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] or case not in FEW


@each
def test_the_file_holds_what_was_counted(case):
    for budget in budgets(case):
        got = once(case, budget)
        manifest = json.loads((got.folder / artifact.MANIFEST).read_text())
        with safe_open(got.folder / artifact.WEIGHTS, "pt") as file:
            written = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        nbytes = {k: t.numel() * t.element_size() for k, t in written.items()}
        for name, term in got.terms.items():
            entry = manifest["layers"][name]
            assert sum(nbytes[full] for full in entry["tensors"].values()) == term.nbytes()
            again = unpack({k: written[full] for k, full in entry["tensors"].items()}, entry["meta"])
            assert torch.equal(again.dense(), term.dense())
            assert again.pack()[1] == term.pack()[1]
        whole = sum(nbytes.values())
        assert whole == artifact.sizes(got.folder)["model_bytes"]
        assert whole <= (got.folder / artifact.WEIGHTS).stat().st_size <= 1.01 * whole + 64_000


@pytest.mark.slow
@each
def test_load_gives_the_same_logits(case):
    got = once(case, USUAL)
    want = got.logits()
    assert not torch.allclose(want, logits(dense_model(case)), atol=1e-3)  # something was removed
    assert torch.equal(logits(crunchmark.load(got.folder, packed=False)), want)
    packed = logits(crunchmark.load(got.folder, packed=True))
    torch.testing.assert_close(packed, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


@few
def test_the_same_seed_gives_the_same_bytes(case):
    first = once(case, USUAL).digest
    forget()
    assert run(case, USUAL).digest == first


@each
def test_leaves_no_trace_in_the_model(case):
    model = once(case, USUAL).model
    assert not model.training
    assert sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()) == 0
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())


@few
def test_out_of_reach_names_the_nearest(case):
    with pytest.raises(Unreachable) as caught:
        run(case, 0.99)
    nearest = caught.value.nearest
    assert 0 < nearest < 0.99
    got = run(case, nearest)
    assert artifact.sizes(got.folder)["scope_bytes"] <= got.plan.total
    with pytest.raises(Unreachable):
        run(case, nearest + 0.02)


@few
def test_nominal_out_of_reach_names_what_is_within(case):
    bitmap = "Sparse" in kinds(case) or (
        rounds_what_is_kept(case) and not case.make().sizes((8, 64), Room(0))
    )
    if bitmap:
        assert run(case, 0.99, "nominal").terms  # any share of the weights can be kept
        return
    with pytest.raises(Unreachable) as caught:
        run(case, 0.99, "nominal")
    assert 0 < caught.value.nearest < 0.99
    run(case, caught.value.nearest, "nominal")
    with pytest.raises(Unreachable):
        run(case, caught.value.nearest + 0.005, "nominal")


NOMINAL = [(c, 0.5) for c in FEW]
NOMINAL += [(c, 0.75) for c in FEW if "exclude" not in dict(c.knobs)]


STEPPED = {*SOLVED, "TensorTrain", "NormalFloat"}  # leaves that no share has exactly


@pytest.mark.parametrize(("case", "budget"), NOMINAL, ids=str)
def test_nominal_shares_are_the_papers(case, budget):
    got = run(case, budget, "nominal")
    if case not in IN_ROOMS:
        (edit,) = got.model.crunchmark_edits
        assert 1 - budget - EDIT_STEPS[case.method] < edit["nominal"] <= 1 - budget
    kept = sum(term.nominal() * math.prod(got.shapes[name]) for name, term in got.terms.items())
    assert kept <= (1 - budget) * sum(map(math.prod, got.shapes.values())) * (1 + 1e-12)
    stepped = {leaf for term in got.terms.values() for leaf in leaves(term)} & STEPPED
    for name, term in got.terms.items():
        share = got.plan.rooms[name].nominal
        step = coarsest(case, got.shapes[name]) if stepped else 1e-12
        if rounds_what_is_kept(case):
            step = most_left_out(case, share)
        assert share - step < term.nominal() <= share + 1e-12
        assert share == 1 - budget or "exclude" in dict(case.knobs)


def most_left_out(case, share):
    """Of a share, where the weights are kept in 4 bits or half of them are: more can not be had."""
    method = case.make()
    most = 0.25 if method.bits else 0.5 * 0.5
    run = getattr(method, "first", method).run
    if run:
        most = 0.25 * (run - 1) / run
    return max(share - most, 0) + 1e-12


@pytest.mark.parametrize("case", [c for c in FEW if c in BASE], ids=str)
def test_the_whole_model_as_scope(case):
    got = run(case, 0.2, scope="model")
    whole = sum(p.numel() for p in dense_model(case).parameters()) * STORED.itemsize
    assert artifact.sizes(got.folder)["model_bytes"] <= int(0.8 * whole)


def test_layerwise_methods_are_methods():
    assert {c.method for c in WORKING if c not in IN_ROOMS} == set(EDIT_STEPS)
    assert {c.method for c in IN_ROOMS if c not in LAYERWISE} == {"awq", "gqsa"}
    assert math.prod((len(YAMLS), len(FAMILIES))) == 372


@few
def test_what_lies_outside_the_blocks_can_be_too_much(case):
    with pytest.raises(Unreachable) as caught:
        run(case, 0.97, "nominal", "model")
    assert 0 <= caught.value.nearest < 0.97
