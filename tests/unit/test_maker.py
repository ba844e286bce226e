"""What goes wrong with one layer names the layer; what no token reached is told on the row."""

import re
from dataclasses import replace

import pytest
import torch
from method_recipe import inputs, keep, layer, layer_of, with_gram

from crunchmark import stats
from crunchmark.allocation import equal_shares
from crunchmark.budget import Room, dense_bytes
from crunchmark.calib import Calibration
from crunchmark.checks import Malformed, naming
from crunchmark.compress import compress
from crunchmark.maker import Maker, Nothing
from crunchmark.models import ModelSpec
from crunchmark.shared import Shared
from crunchmark.stats import Gram
from crunchmark.view import View
from methods.gptq import GPTQ
from methods.gqsa import GQSA, GroupPruned
from methods.int2_1 import INT21
from methods.rtn import RTN
from methods.sparsegpt import SparseGPT
from methods.spqr import SpQR
from methods.svd_llm import SVDLLM

OBS = [GPTQ(), SparseGPT(), SparseGPT(run=4), SpQR(), INT21(), GroupPruned()]
each = pytest.mark.parametrize("method", OBS, ids=repr)


def term(method, of, room):
    return Maker(method, Nothing(), Calibration(torch.empty(0, 0)), "model", Shared()).term(of, room)


def test_a_gram_that_stays_indefinite_names_the_layer():
    of = layer(1)
    bad = with_gram(of, of[Gram].value - 20 * of[Gram].value.diagonal().mean() * torch.eye(128))
    with pytest.raises(ValueError, match=r"^layer: gram stays indefinite with damping 10 of its mean diag"):
        term(GPTQ(), bad, keep(0.5))


@pytest.mark.parametrize(
    "method", [SparseGPT(), GQSA(bqpo_steps=0, e2e_steps=0)], ids=lambda m: type(m).__name__
)
def test_in_a_model_as_well(tiny, tokens, method, monkeypatch):
    def fails(*_):
        raise ValueError("gram stays so; valid: another")

    monkeypatch.setattr(stats, "damped_inverse", fails)
    view = View(tiny("llama_gqa"))
    plan = equal_shares(view, 0.6, "bytes", "blocks", torch.bfloat16)
    with pytest.raises(ValueError, match=rf"^{re.escape(view.sites(0)[0].name)}: gram stays so; valid: an"):
        compress(method, view, plan, Calibration(tokens), "llama_gqa")


def test_a_decomposition_that_fails_names_the_layer(monkeypatch):
    def fails(_):
        raise torch.linalg.LinAlgError("linalg.eigh: no convergence (error code: 3).\nMore.")

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    with pytest.raises(ValueError, match=r"^layer: linalg.eigh: no convergence \(error code: 3\)\.$"):
        term(SVDLLM(), layer(1), keep(0.5))


def test_a_term_above_its_room_is_its_makers_mistake_not_the_budgets():
    class Greedy(RTN):
        def compress(self, layer, room):
            return super().compress(layer, replace(room, nbytes=2 * room.nbytes))

    of = layer(1)
    room = Room(dense_bytes(of.shape) // 3, None, torch.float32)
    told = rf"^layer: Greedy: its term takes \d+ bytes; valid: a term within the room of {room.nbytes} by"
    with pytest.raises(ValueError, match=told):
        term(Greedy(), of, room)


def test_a_name_that_is_told_is_not_told_twice():
    with pytest.raises(ValueError, match=r"^q has 3; valid: 4$"), naming("q"):
        raise ValueError("q has 3; valid: 4")
    with pytest.raises(Malformed, match=r"^3; valid: 4$"), naming("q"):
        raise Malformed("3; valid: 4")


@each
def test_without_damping_few_tokens_are_enough(method):
    bare, few = type(method)(**{**vars(method), "damp": 0.0}), layer(14, tokens=40)
    made = bare.compress(few, keep(0.25))
    assert torch.isfinite(made.dense()).all()
    assert made.notes["damping"] == 1e-3


@each
def test_inputs_that_no_token_reached_are_counted(method):
    x = inputs(13)
    x[:, [4, 90]] = 0
    assert method.compress(layer_of(layer(13).weight, x), keep(0.25)).notes["dead"] == 2


def test_the_row_tells_over_all_layers(runner, make, monkeypatch):
    whole = ModelSpec.load

    def dead(self):
        model = whole(self)
        model.model.layers[0].input_layernorm.weight.data[5] = 0  # what q, k and v read
        return model

    monkeypatch.setattr(ModelSpec, "load", dead)
    for method, want in ((GPTQ(), (3, 0.01)), (RTN(), (None, None))):
        cell = make(method, 0.5)
        runner.run(cell)
        told = runner.store.get_cell(cell.study, cell.key)
        assert (told["dead"], told["damping"]) == want
