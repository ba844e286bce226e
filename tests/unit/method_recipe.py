"""Layers with unequal, correlated inputs and heavy-tailed weights: where papers' orderings hold."""

import torch

from crunchmark.budget import Room
from crunchmark.interface import Layer
from crunchmark.stats import Gram, InputNorm


def norm(gram):
    """The input norms are the root of the Gram's diagonal."""
    return InputNorm(gram.sums.diagonal().clone(), gram.tokens)


def normal(seed, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inputs(seed, wide=128, tokens=1024):
    """(tokens, wide): mixed, of unequal scale, three channels ten times as large."""
    mixed = normal(seed, tokens, wide) @ (torch.eye(wide) + normal(seed + 1, wide, wide) / wide**0.5)
    x = mixed * (0.8 * normal(seed + 2, wide)).exp()
    x[:, torch.randperm(wide, generator=torch.Generator().manual_seed(seed))[:3]] *= 10
    return x


def layer_of(weight, x, name="layer"):
    gram = Gram.zero(weight.shape[1])
    gram.update(x)
    return Layer(name, weight, {Gram: gram, InputNorm: norm(gram)})


def layer(seed=0, out=96, wide=128, tokens=1024):
    weight = normal(seed + 3, out, wide) * (0.5 * normal(seed + 4, out, wide)).exp()
    return layer_of(weight, inputs(seed, wide, tokens))


def with_gram(like, gram):
    """The same weight on other inputs."""
    found = Gram(gram.double(), 1)
    return Layer(like.name, like.weight, {Gram: found, InputNorm: norm(found)})


def keep(share, dtype=torch.float32):
    """A room in the paper's own count."""
    return Room(0, share, dtype)


def error(layer, stand_in):
    """tr(D C D^T) for D = W - stand_in, in float64."""
    d = layer.weight.double() - stand_in.double()
    return float(((d @ layer[Gram].value) * d).sum())
