"""What a trial calls the error of a layer: of its outputs, with the bias of a term, or of its weights."""

import pytest
import torch

from crunchmark.allocation import equal_shares
from crunchmark.bench import Bench
from crunchmark.budget import dense_bytes
from crunchmark.calib import Calibration
from crunchmark.fisher import Fisher
from crunchmark.lost import LOST
from crunchmark.maker import Maker, Nothing
from crunchmark.shared import Shared
from crunchmark.stats import Gram, InputMean
from crunchmark.view import View
from methods.afm import AFM
from methods.allocate.ilp import ILP
from methods.lord import LoRD
from methods.lq_lora import LQLoRA

TOKENS = torch.randint(3, 64, (8, 16), generator=torch.Generator().manual_seed(2))


def bench(model, method, wanted=()):
    view = View(model)
    plan = equal_shares(view, 0.5, "bytes", "blocks", torch.bfloat16)
    maker = Maker(method, Nothing(), Calibration(TOKENS, batch=4), "model", Shared(), wanted)
    return Bench(maker, view, plan)


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


@pytest.mark.parametrize("fisher", [False, True])
def test_errors_of_weights_have_the_methods_prices(tiny, fisher):
    with bench(tiny("llama_gqa"), LQLoRA(fisher=fisher)) as trial:
        for name in trial.units[0] + trial.units[-1]:
            layer = trial.layer(name)
            price = layer[Fisher].value.double() if fisher else 1.0
            d, w = (layer.weight - trial.term(name, 0.4).dense()).double(), layer.weight.double()
            want = float((price * d * d).sum() / (price * w * w).sum())
            assert trial.error(name, 0.4, "weights") == pytest.approx(want, rel=1e-6)
        with pytest.raises(ValueError, match=r"error='bias' is unknown; valid: outputs, weights"):
            trial.error(name, 0.4, "bias")


def test_the_programme_of_the_paper_is_best_in_its_own_metric(tiny):
    """LQ-LoRA's: |sqrt(F) * (W - Q - L)|^2 over all layers, from the same sizes at the same budget."""
    with bench(tiny("llama_gqa"), LQLoRA(fisher=True, iterations=3), (Gram,)) as trial:

        def cost(plan):
            total = 0.0
            for name in trial.shapes:
                layer = trial.layer(name)
                d = (
                    layer.weight
                    - trial.term(name, plan.rooms[name].nbytes / dense_bytes(layer.shape)).dense()
                )
                total += float((layer[Fisher].value * d.square()).sum())
            return total

        plans = [ILP(of=of, levels=8).allocate(trial, trial.shapes, trial.plan.total) for of in LOST]
        equal = trial.fit(dict.fromkeys(trial.shapes, trial.share))
        outputs, weights = map(cost, plans)
        assert weights <= outputs
        assert weights < cost(equal)
