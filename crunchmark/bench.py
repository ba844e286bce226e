"""What allocators may ask: single layers at single shares, and the model with any plan, tried out."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from crunchmark.allocation import fit
from crunchmark.budget import Plan, Room, Unreachable, dense_bytes
from crunchmark.checks import one_of
from crunchmark.interface import Layer, Trial
from crunchmark.linalg import calibrated_error
from crunchmark.maker import Maker
from crunchmark.projected import directions
from crunchmark.stats import Gram
from crunchmark.terms import Dense, Term
from crunchmark.view import Site, View
from crunchmark.walk import Stream, evaluating

LOSSES = ("kl", "nll")
KEPT = 2**28  # bytes of dense next-token distributions that are kept
UNITS = ("layer", "branch", "block")


class Bench(Trial):
    """A trial on the model itself, which `close` leaves as it was.

    maker: makes the terms. plan: of equal shares.
    """

    def __init__(self, maker: Maker, view: View, plan: Plan) -> None:
        self.maker, self.view, self.plan = maker, view, plan
        self.shapes = view.layers()
        self.sites = {site.name: site for site in view.all_sites()}
        self.roles = {name: site.role for name, site in self.sites.items()}
        self.blocks = [[site.name for site in view.sites(i)] for i in range(len(view.blocks))]
        self.units = list(self._units(maker.method.unit))
        self.samples, self.seed = len(maker.calib.tokens), maker.calib.seed
        nominal = next(iter(plan.rooms.values())).nominal
        whole = sum(dense_bytes(s) for s in self.shapes.values())
        self.share = plan.total / whole if nominal is None else nominal
        self._now: dict[str, float] = {}  # shares that the model's layers have now; those it lacks are dense
        self._said: dict[
            tuple[int, ...], Tensor
        ] = {}  # ids -> dense log-probabilities (T, V)
        self._open = ExitStack()

    def _units(self, unit: str) -> Iterator[list[str]]:
        one_of("unit", unit, UNITS)
        for names in self.blocks:
            if unit == "layer":
                yield from ([name] for name in names)
            elif unit == "block":
                yield list(names)
            else:
                mlp = {"gate", "up", "down"}
                yield [name for name in names if self.roles[name] not in mlp]
                yield [name for name in names if self.roles[name] in mlp]

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: Any) -> None:
        """Put the dense weights back and let go of the statistics."""
        self._install({})
        self._open.close()

    def layer(self, name: str) -> Layer:
        """The layer with the statistics of its inputs."""
        site = self._dense_sites[name]
        stats = self._statistics(self._block_of[name]) if self.maker.needs else {}
        return self.maker.layer(site, stats.get(name, {}), dense=True)

    @cached_property
    def _block_of(self) -> dict[str, int]:
        return {name: i for i, names in enumerate(self.blocks) for name in names}

    @cached_property
    def _statistics(self) -> Any:
        maker = self.maker
        return self._open.enter_context(
            maker.shared.statistics(self._dense_view, maker.calib, maker.model_key)
        )

    @cached_property
    def _dense_view(self) -> View:
        """The model before anything was tried: a copy of its own."""
        return View(copy.deepcopy(self.view.model).eval())

    @cached_property
    def _dense_sites(self) -> dict[str, Site]:
        return {site.name: site for site in self._dense_view.all_sites()}

    def sizes(self, name: str) -> list[float] | None:
        """Shares the layer can have."""
        options = self._sizes(name)
        return [size / dense_bytes(self.shapes[name]) for size in options] if options else None

    def _sizes(self, name: str) -> Sequence[int]:
        """Bytes the layer can have (nominal: shares of its dense bytes), () where any will do."""
        room, shape = self.plan.rooms[name], self.shapes[name]
        options = self.maker.method.sizes(shape, room)
        if options is None:
            return ()
        full, taken = dense_bytes(shape), 0
        if room.nominal is None:  # in the papers' own count a repair comes on top
            taken = self.maker.repairer.reserve(shape, room)
        return [*(size + taken for size in options if size + taken < full), full]

    def room(self, name: str, keep: float) -> Room:
        """The room of a layer that keeps that share."""
        old = self.plan.rooms[name]
        share = None if old.nominal is None else keep
        return Room(int(keep * dense_bytes(self.shapes[name]) + 1e-6), share, old.dtype)

    def term(self, name: str, keep: float) -> Term:
        """The layer's term at that share, made once: the level of a database on disk.

        Raises:
            Unreachable: the share is too small.
        """
        return self.maker.level(self.layer(name), self.room(name, keep))

    def error(self, name: str, keep: float) -> float:
        """tr((W - Q) C (W - Q)^T) / tr(W C W^T); without inputs, C is the identity; inf where unreachable."""
        layer = self.layer(name)
        gram = layer.stats.get(Gram)
        known = torch.eye(layer.shape[1], dtype=torch.float64) if gram is None else gram.value
        try:
            return calibrated_error(layer.weight, self.term(name, keep).dense(), known)
        except Unreachable:
            return float("inf")

    def spectrum(self, name: str) -> Tensor:
        """Energy of the directions of W C W^T, or of W W^T where no input was looked at."""
        layer = self.layer(name)
        return directions(layer, "gram" if Gram in layer.stats else "identity").energy

    def influence(self) -> list[float]:
        """1 - mean cosine of what goes into a block and what comes out, token by token."""
        stream, found = self.maker.calib.stream(self._dense_view), []
        with evaluating(self._dense_view.model):
            for i in range(len(stream.blocks)):
                cosines: list[Tensor] = []
                stream.advance(_compared(stream, i, cosines))
                found.append(1 - float(torch.cat(cosines).mean()))
        return found

    @torch.no_grad()
    def loss(self, keeps: Mapping[str, float], samples: Sequence[int], kind: str = "kl") -> float:
        """The model at these shares against its dense self, or against the text; found once.

        Raises:
            ValueError: the kind is unknown.
        """
        one_of("loss", kind, LOSSES)
        asked = {name: self.room(name, keep) for name, keep in keeps.items() if keep < 1}
        key = self.maker.key_of_model(asked, loss=kind, samples=list(samples), tokens=self.maker.calib.key)
        return self.maker.shared.derived(key, lambda: self._loss(keeps, samples, kind))

    def _loss(self, keeps: Mapping[str, float], samples: Sequence[int], kind: str) -> float:
        try:
            self._install(keeps)
        except Unreachable:
            return float("inf")
        total = count = 0.0
        with evaluating(self.view.model):
            for ids in self.maker.calib.tokens[list(samples)].split(self.maker.calib.batch):  # (B, T)
                found = _log_probs(self.view.model, ids[:, :-1])  # (B, T - 1, V)
                if kind == "kl":
                    said = torch.stack([self._dense_said(row) for row in ids])
                    total += float(F.kl_div(found, said, reduction="sum", log_target=True))
                else:
                    total -= float(found.gather(2, ids[:, 1:, None].to(found.device)).sum())
                count += ids[:, 1:].numel()
        return total / count

    def _dense_said(self, ids: Tensor) -> Tensor:
        """Dense log-probabilities (T - 1, V) behind ids (T,); kept while there is room for them."""
        key = tuple(ids.tolist())
        if key in self._said:
            return self._said[key]
        found = _log_probs(self._dense_view.model, ids[None, :-1])[0]
        if sum(t.nbytes for t in self._said.values()) < KEPT:
            self._said[key] = found
        return found

    def _install(self, keeps: Mapping[str, float]) -> None:
        """Bring the model to these shares; only layers whose share is another are touched."""
        for name, site in self.sites.items():
            now, wanted = self._now.get(name, 1.0), keeps.get(name, 1.0)
            if now == wanted:
                continue
            if wanted >= 1:
                _restore(site, self._dense_sites[name])
            else:
                site.install(self.term(name, wanted))
            self._now[name] = wanted

    def fit(self, keeps: Mapping[str, float], **notes: Any) -> Plan:
        """The plan nearest to these shares."""
        sizes = {name: self._sizes(name) for name in self.shapes}
        return fit(self.plan, self.shapes, keeps, sizes, self.units, **notes)


def _restore(site: Site, dense: Site) -> None:
    """The dense module's weight, bit for bit, and no shift."""
    site.install(Dense(dense.weight(), torch.float32))


def _log_probs(model: Any, ids: Tensor) -> Tensor:
    """Log-probabilities (B, T, V) of the next token behind ids (B, T), float32."""
    device = next(model.parameters()).device
    logits: Tensor = model(input_ids=ids.to(device), use_cache=False).logits
    return logits.float().log_softmax(-1)


def _compared(stream: Stream, i: int, cosines: list[Tensor]) -> Iterator[Tensor]:
    """Block i's outputs, and on the way the cosine of each token's input and output."""
    for b, out in enumerate(stream.forward(i)):
        cosines.append(F.cosine_similarity(stream.hidden[b].double(), out.double(), dim=-1).flatten())
        yield out
