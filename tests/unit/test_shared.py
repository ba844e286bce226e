"""What one pass gathers: vectors for whoever needs no more, all kinds for whoever asks for a Gram."""

import pytest
import torch

from crunchmark import Gram, InputMean, InputNorm
from crunchmark.allocation import equal_shares
from crunchmark.cache import Cache
from crunchmark.calib import Calibration
from crunchmark.compress import compress
from crunchmark.shared import Shared
from crunchmark.terms import Dense
from crunchmark.view import View
from crunchmark.walk import walk
from methods.flap import FLAP
from methods.modegpt import MoDeGPT
from methods.shortgpt import ShortGPT
from methods.wanda_sp import WandaSP


@pytest.fixture
def passes(monkeypatch):
    """The kinds that every pass gathered."""
    made = []

    def counted(view, calib, kinds, visit):
        made.append({kind.__name__ for kind in kinds})
        walk(view, calib, kinds, visit)

    monkeypatch.setattr("crunchmark.shared.walk", counted)
    return made


CHEAP, ALL = {"InputNorm", "InputMean"}, {"Gram", "InputNorm", "InputMean"}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    ("asked", "gathered"),
    [
        ([(InputNorm,), (InputMean,)], [CHEAP]),
        ([(Gram,), (InputNorm,)], [ALL]),
        ([(InputMean,), (Gram, InputMean), (InputNorm,)], [CHEAP, ALL]),
    ],
)
def test_a_gram_is_paid_by_who_needs_it(tiny, tokens, tmp_path, passes, kept, asked, gathered):
    view, shared = View(tiny("llama_gqa")), Shared(Cache(tmp_path) if kept else None)
    name, values = view.sites(1)[0].name, []
    for needs in asked:
        with shared.statistics(view, Calibration(tokens, batch=2), "tiny", needs) as block:
            stats = block(1)[name]
            assert set(needs) <= set(stats)
            values.append(stats[InputNorm].value)
    assert passes == gathered
    assert all(torch.equal(v, values[0]) for v in values)  # the same to the last bit, whoever paid


@pytest.mark.parametrize(("memory", "max_gb"), [(10**6, 1e-6), (1, 1e-3), (1, 1e-6)])
def test_a_level_that_is_made_again_is_said_once(tmp_path, capfd, memory, max_gb):
    """Of two terms, neither memory nor cache holds both."""
    shared, made = Shared(Cache(tmp_path, max_gb), memory), []
    for key in "ababab":
        term = shared.term(key, lambda key=key: made.append(key) or Dense(torch.ones(20, 30), torch.float32))
        assert torch.equal(term.dense(), torch.ones(20, 30))
    again = (memory, max_gb) == (1, 1e-6)
    assert (len(made) > 2) == again
    told = "warning: cache.max_gb=1e-06 is too little for an allocator's levels; some are made again\n"
    assert capfd.readouterr().err == told * again


@pytest.mark.parametrize("method", [FLAP(), WandaSP(), ShortGPT(), MoDeGPT()])
def test_budgets_of_a_whole_model_method_share_what_it_saw_of_the_dense_model(tiny, tokens, method):
    shared, streams = Shared(), []

    class Counted(Calibration):
        def stream(self, view):
            streams.append(view)
            return super().stream(view)

    def cut(budget, key="tiny", ids=tokens, shared=shared):
        view = View(tiny("llama"))
        before = len(streams)
        plan = equal_shares(view, budget, "nominal", "blocks", torch.float32)
        compress(method, view, plan, Counted(ids, batch=2), key, shared)
        return len(streams) - before, view.model.state_dict()

    first, _ = cut(0.2)
    again, made = cut(0.4)
    assert again == first - 1  # the pass that scores; modegpt goes on to fit
    assert cut(0.4, key="another")[0] == cut(0.4, ids=tokens.flip(0))[0] == first
    alone = cut(0.4, shared=Shared())[1]
    assert all(torch.equal(made[name], alone[name]) for name in alone)
