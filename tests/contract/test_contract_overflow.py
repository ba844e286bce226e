"""A weight that 16 bits can not hold: a method copes with it, or the layer and what helps are named."""

from dataclasses import replace

import pytest
import torch
from contract_cases import SHARED, YAMLS, Case, dense_model, layers

from crunchmark.allocation import Uniform, equal_shares
from crunchmark.budget import Room, dense_bytes
from crunchmark.calib import Calibration
from crunchmark.compress import allocate, compress
from crunchmark.interface import Keep, Method
from crunchmark.maker import Maker, Nothing
from crunchmark.shared import Shared
from crunchmark.view import View

F16, BF16 = torch.float16, torch.bfloat16
HUGE = 1e5  # float16 ends at 65504
COPES = {"awq", "gptq", "gqsa", "hqq", "int2_1", "lq_lora", "rtn", "sparsegpt_rtn", "spqr", "wanda_gptq"}
CASES = [Case(name, "mistral") for name in sorted(set(YAMLS) - {"dense"})]
LAYERS = [case for case in CASES if isinstance(case.make(), Method)]
MODELS = [case for case in CASES if case not in LAYERS]


def refused(caught, case, layer):
    told = str(caught.value)
    assert layer in told
    assert f"{type(case.make()).__name__} left inf in " in told
    assert told.endswith(" (float16); valid: model.dtype=bfloat16")
    assert "\n" not in told


def term(method, dtype, keep=0.6):
    like = layers("mistral")[-1]
    weight = like.weight.clone()
    weight[3, 5] = HUGE
    room = Room(int(keep * dense_bytes(like.shape)), None, dtype)
    return Maker(method, Nothing(), Calibration(torch.empty(0, 0)), "huge", Shared()).term(
        replace(like, weight=weight), room
    )


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_a_term_that_float16_can_not_hold_is_refused_by_name(case):
    assert torch.isfinite(term(case.make(), BF16).dense()).all()
    if case.method in COPES:
        assert torch.isfinite(term(case.make(), F16).dense()).all()
        return
    with pytest.raises(ValueError, match="float16") as caught:
        term(case.make(), F16)
    refused(caught, case, "model.layers.0.mlp.down_proj: ")


def test_what_stays_dense_is_looked_at_as_well():
    with pytest.raises(ValueError, match=r"0\.mlp\.down_proj: Keep left inf in weight \(float16\); valid"):
        term(Keep(), F16, keep=1.0)


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_a_model_that_float16_can_not_hold_is_refused_by_name(case):
    model, method = dense_model(case), case.make()
    view = View(model)
    site = view.sites(0)[-1]
    with torch.no_grad():
        site.module.weight[3, 5] = HUGE
    plan = equal_shares(view, 0.4, "bytes", "blocks", F16)
    given = (case.calibration(), f"huge mistral {len(view.blocks)}", SHARED)
    plan = allocate(Uniform(), method, view, plan, *given)
    if case.method in COPES:
        compress(method, view, plan, *given)
        assert all(torch.isfinite(t).all() for t in model.state_dict().values())
        return
    with pytest.raises(ValueError, match="float16") as caught:
        compress(method, view, plan, *given)
    refused(caught, case, f"{site.name}.weight")
