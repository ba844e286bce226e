"""Artifacts of tiny models to export, and what is asked of what was exported."""

import torch
from term_cases import quantised
from transformers import AutoModelForCausalLM

from crunchmark import LowRank, Shift, Sparse, Sum, artifact
from crunchmark.terms import Dense
from crunchmark.view import View

BF16 = torch.bfloat16
HALF_STEP = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # relative, of a rounding
EXACT = {"rtol": 0, "atol": 1e-5}  # of logits around 2: sums in another order


@torch.no_grad()
def logits(model, tokens):
    return model(tokens, use_cache=False).logits


def stored(model, path, term_of):
    """The artifact of a model whose sites, counted, get terms; None leaves the layer as it is."""
    view = View(model)
    found = {site.name: term_of(i, site) for i, site in enumerate(view.all_sites())}
    path.mkdir()
    artifact.write(path, view, {k: t for k, t in found.items() if t is not None}, BF16, {})
    return path


def several(i, site):
    """Terms of many kinds in turn."""
    w = site.weight()
    return [
        quantised(w, 4, 8, True)[0],
        Sparse.of(w, w.abs() > w.abs().median(), BF16),
        LowRank.of(w[:, :3], w[:3], BF16),
        Dense(w, BF16),
        None,
    ][i % 5]


def codes_of(bits, groups, sym):
    """Layers of such codes; the settings take turns."""

    def term(i, site):
        return quantised(site.weight(), bits[i % len(bits)], groups[i % len(groups)], sym)[0]

    return term


def shifted(i, site):
    """A quantised layer that adds a constant to every output."""
    w = site.weight()
    value = torch.linspace(-1, 1, len(w))
    return Sum([quantised(w, 8, -1, True)[0], Shift.of(value, w.shape[1], BF16)])


def same(folder, out, tokens, **tolerance):
    back = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    torch.testing.assert_close(
        logits(back, tokens), logits(artifact.load(folder, packed=False), tokens), **tolerance or EXACT
    )
    return back
