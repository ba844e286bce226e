"""AWQ: scale inputs that matter up before rounding (Lin et al., MLSys 2024, arXiv:2306.00978)."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from crunchmark import (
    Calibration,
    Dense,
    Fold,
    Grid,
    InputMean,
    Layer,
    ModelMethod,
    Plan,
    Rounded,
    Stream,
    Term,
    View,
    check_grid,
    evaluating,
    flag,
    foldable,
    recording,
    sampled,
    watching,
    whole,
)

LEAST = 1e-4  # of a scale before it is centred
BOUNDS, OF = 10, 20  # how many bounds are tried, 1 - k / OF of the largest weight of a group
TOKENS = 512  # whose outputs bounds are judged by
UNCLIPPED = ("q", "k", "qkv")  # their outputs are multiplied with each other


@dataclass(frozen=True)
class AWQ(ModelMethod):
    """A layer is not enough: its scales go into the norm or layer before it, and a whole branch judges them.

    group: inputs that share a scale, -1 for the whole row, null for the finest that fits.
    sym: symmetric grid, no stored zero.
    ratios: exponents tried of the mean magnitude of an input: 0, 1 / ratios, ... below 1.
    clip: clamp the weights of each group to the bound with the least error, except in queries and keys.
    bits: of every weight, 2 to 8, null for the most that fit.
    """

    group: int | None = None
    sym: bool = False
    ratios: int = 20
    clip: bool = True
    bits: int | None = None

    covers = ("compensate",)
    rooms = True

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        check_grid(self.group, self.sym, self.bits)
        whole("method.ratios", self.ratios)
        flag("method.clip", self.clip)

    @property
    def likeness(self) -> Rounded:
        """The same grids without scales."""
        return Rounded(self.group, self.sym, self.bits)

    @torch.no_grad()
    def compress(self, view: View, plan: Plan, calib: Calibration) -> dict[str, Term]:
        """Block by block: scales, then bounds, then rounding."""
        rooms, how = plan.rooms, (self.group, self.sym, self.bits)
        grids = {s.name: Grid.fits(s.shape, rooms[s.name], s.name, *how) for s in view.all_sites()}
        terms: dict[str, Term] = {}
        stream, dense = calib.stream(view), calib.inputs == "dense"
        with evaluating(view.model):
            for i, block in enumerate(stream.blocks):
                home = next(block.parameters()).device
                block.to(calib.device)
                ratios = self.scale(view, i, stream, grids, plan.dtype)
                inputs = sampled(stream, i, view.sites(i), TOKENS, advance=dense)
                for site in view.sites(i):
                    w, grid = site.weight(), grids[site.name]
                    if self.clip and grid.bits and site.role not in UNCLIPPED:
                        w = clipped(w, inputs[site.group], grid)
                    term, ratio = grid.term(w), ratios.get(site.name)
                    site.install(term)
                    if ratio is not None:
                        term.noted(ratio=ratio)
                    elif grid.bits:
                        term.noted(note=f"{site.role}: no scale")
                    terms[site.name] = term.to(home)
                if not dense:
                    stream.advance(stream.forward(i))
                block.to(home)
        return terms

    def scale(
        self, view: View, i: int, stream: Stream, grids: Mapping[str, Grid], dtype: torch.dtype
    ) -> dict[str, float]:
        """Scale block i for the grids of its layers; the exponents chosen, by layer."""
        found: dict[str, float] = {}
        for fold in foldable(view, i, stream):
            if any(grids[site.name].bits for site in fold.readers):
                options, losses = self.search(fold, i, stream, grids, dtype)
                best = losses.index(min(losses))  # of equals the first: 0 is plain rounding
                fold.apply(options[best], dtype)
                found |= dict.fromkeys((site.name for site in fold.readers), best / self.ratios)
        return found

    def search(
        self, fold: Fold, i: int, stream: Stream, grids: Mapping[str, Grid], dtype: torch.dtype
    ) -> tuple[list[Tensor], list[float]]:
        """Scales (in,) by exponent, and the squared error of what is inspected with readers rounded so."""
        with recording(fold.inspected) as calls, watching(fold.readers, (InputMean,)) as stats:
            for _ in stream.forward(i):
                pass
        weights, first = [site.weight() for site in fold.readers], fold.readers[0].name
        mean = Layer(first, weights[0], stats[first])[InputMean].absolute.to(weights[0].device)  # (in,)
        wanted = [fold.output(call) for call in calls]
        options, losses = [], []
        for k in range(self.ratios):
            s = mean.pow(k / self.ratios).clamp(min=LEAST)
            s = fold.giver.exact(s / (s.max() * s.min()).sqrt(), dtype)
            for site, w in zip(fold.readers, weights, strict=True):
                site.install(Dense(grids[site.name].value(w * s) / s, torch.float32))
            off = (fold.output(call) - want for call, want in zip(calls, wanted, strict=True))
            options.append(s)
            losses.append(sum(float(x.float().square().sum(dtype=torch.float64)) for x in off))
        for site, w in zip(fold.readers, weights, strict=True):
            site.install(Dense(w, torch.float32))
        return options, losses


def clipped(w: Tensor, x: Tensor, grid: Grid) -> Tensor:
    """The weight (out, in) clamped, per row and group, to the bound that costs its part of the output least.

    x: inputs (tokens, in).
    """
    groups = 1 if grid.group == -1 else w.shape[1] // grid.group
    parts, x = w.unflatten(1, (groups, -1)), x.unflatten(1, (groups, -1)).transpose(0, 1)
    if x.shape[1] > x.shape[2]:
        x = torch.linalg.qr(x, mode="r").R  # fewer rows of the same Gram, (groups, g, g)
    top = parts.abs().amax(-1, keepdim=True)  # (out, groups, 1)
    bound, least = top, torch.full_like(top, inf)
    for k in range(BOUNDS):
        trial = top * (1 - k / OF)
        off = grid.value(parts.clamp(-trial, trial).flatten(1)).view_as(parts) - parts
        error = torch.einsum("gtk,ogk->ogt", x, off).square().sum(-1, keepdim=True)
        bound, least = torch.where(error < least, trial, bound), torch.minimum(error, least)
    found: Tensor = parts.clamp(-bound, bound).flatten(1)
    return found
