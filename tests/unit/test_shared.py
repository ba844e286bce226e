"""What one pass gathers: vectors for whoever needs no more, all kinds for whoever asks for a Gram."""

import pytest
import torch

from crunchmark import Gram, InputMean, InputNorm
from crunchmark.cache import Cache
from crunchmark.calib import Calibration
from crunchmark.shared import Shared
from crunchmark.terms import Dense
from crunchmark.view import View
from crunchmark.walk import walk


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
