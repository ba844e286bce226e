"""What a trial calls the error of a layer counts the bias that a term brings."""

import pytest
import torch

from crunchmark.allocation import equal_shares
from crunchmark.bench import Bench
from crunchmark.calib import Calibration
from crunchmark.maker import Maker, Nothing
from crunchmark.shared import Shared
from crunchmark.stats import Gram, InputMean
from crunchmark.view import View
from methods.afm import AFM
from methods.lord import LoRD

TOKENS = torch.randint(3, 64, (8, 16), generator=torch.Generator().manual_seed(2))


def bench(model, method):
    view = View(model)
    plan = equal_shares(view, 0.5, "bytes", "blocks", torch.bfloat16)
    return Bench(Maker(method, Nothing(), Calibration(TOKENS, batch=4), "model", Shared()), view, plan)


def test_the_bias_counts(tiny):
    with bench(tiny("llama_gqa"), AFM()) as trial:
        for name in trial.units[0] + trial.units[-1]:
            layer, term = trial.layer(name), trial.term(name, 0.5)
            gram, mean = layer[Gram].value, layer[InputMean]
            d, w, s = (t.double() for t in (layer.weight - term.dense(), layer.weight, term.shift()))
            middle = mean.sums / mean.tokens
            about = gram - mean.tokens * middle.outer(middle)
            want = ((d @ about) * d).sum() + mean.tokens * (d @ middle - s).square().sum()
            assert trial.error(name, 0.5) == pytest.approx(float(want / ((w @ gram) * w).sum()), rel=1e-5)


def test_layers_that_a_method_leaves_have_one_size(tiny):
    with bench(tiny("llama_gqa"), LoRD(roles="mlp")) as trial:
        for name, role in trial.roles.items():
            assert (trial.sizes(name) == [1.0]) == (role in {"q", "k", "v", "o"})
        rooms = trial.fit(dict.fromkeys(trial.shapes, 0.5)).rooms
        assert sum(room.nbytes for room in rooms.values()) <= trial.plan.total
        assert all(trial.error(name, 1.0) < 1e-4 for name in trial.units[0])
