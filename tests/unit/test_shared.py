"""What one pass gathers: vectors for whoever needs no more, all kinds for whoever asks for a Gram."""

import pytest
import torch

from crunchmark import Gram, InputMean, InputNorm
from crunchmark.cache import Cache
from crunchmark.calib import Calibration
from crunchmark.shared import Shared
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
