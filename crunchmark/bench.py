"""What allocators may ask: single layers at single shares, and the model with any plan, tried out."""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from crunchmark.allocation import fit
from crunchmark.budget import Plan, Room, Unreachable, dense_bytes
from crunchmark.checks import one_of
from crunchmark.effects import influence
from crunchmark.interface import Compensator, Layer, Trial
from crunchmark.lost import LOST
from crunchmark.maker import Maker, Nothing, around
from crunchmark.projected import Projected, directions
from crunchmark.stats import Gram
from crunchmark.terms import Dense, Term
from crunchmark.view import Site, View
from crunchmark.walk import evaluating

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
        self.spared = {name for name, role in self.roles.items() if maker.method.leaves(role)}
        self.blocks = [[site.name for site in view.sites(i)] for i in range(len(view.blocks))]
        self.units = list(self._units(maker.method.unit))
        self.samples, self.seed = len(maker.calib.tokens), maker.calib.seed
        nominal = next(iter(plan.rooms.values())).nominal
        whole = sum(dense_bytes(s) for s in self.shapes.values())
        self.share = plan.total / whole if nominal is None else nominal
        self._now: dict[str, float] = {}  # shares that the model's layers have now; those it lacks are dense
        self._said: dict[tuple[int, ...], Tensor] = {}  # ids -> dense log-probabilities (T, V)
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
        site, i = self._dense_sites[name], self._block_of[name]
        stats = self._statistics(i).get(name, {}) if self.maker.looks else {}
        return self.maker.layer(site, {**stats, **self._slopes(i).get(name, {})}, dense=True)

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
    def _slopes(self) -> Any:
        return self._open.enter_context(self.maker.gradients(self._dense_view))

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
        """Bytes the layer can have with its repair (nominal: of its dense bytes); () where any will do."""
        maker, room, shape = self.maker, self.plan.rooms[name], self.shapes[name]
        full = dense_bytes(shape)
        if name in self.spared:
            return [full]
        options = maker.method.sizes(shape, room)
        if options is None:
            return ()
        sizes = (around(self._repairer, size, shape, room) for size in options)
        return [*(size for size in sizes if size < full), full]

    @property
    def _repairer(self) -> Compensator:
        """What takes bytes of a layer's room: in nominal accounting nothing, a repair comes on top."""
        return self.maker.repairer if self.plan.accounting == "bytes" else Nothing()

    def _least(self, name: str) -> int:
        """Bytes below which the layer can not be, where any size will do."""
        room, shape = self.plan.rooms[name], self.shapes[name]
        size = self.maker.method.least(shape, room)
        return min(around(self._repairer, size, shape, room), dense_bytes(shape)) if size else 0

    def room(self, name: str, keep: float) -> Room:
        """The room of a layer that keeps that share."""
        old, keep = self.plan.rooms[name], 1.0 if name in self.spared else keep
        share = None if old.nominal is None else keep
        return Room(int(keep * dense_bytes(self.shapes[name]) + 1e-6), share, old.dtype)

    def term(self, name: str, keep: float) -> Term:
        """The layer's term at that share, made once: the level of a database on disk.

        Raises:
            Unreachable: the share is too small.
        """
        return self.maker.level(self.layer(name), self.room(name, keep))

    def error(self, name: str, keep: float, of: str = "outputs") -> float:
        """Share of the layer's outputs, or weights, that its term loses (`lost`); inf where unreachable.

        Raises:
            ValueError: it is asked of something else.
        """
        one_of("error", of, LOST)
        try:
            return LOST[of](self.layer(name), self.term(name, keep))
        except Unreachable:
            return float("inf")

    def spectrum(self, name: str) -> Tensor:
        """Energy of the method's own directions; of others of W C W^T where they see a Gram C, or W W^T."""
        if isinstance(method := self.maker.method, Projected):
            return method.directions(self.layer(name)).energy
        return directions(self.layer(name), "gram" if Gram in method.needs else "identity").energy

    def influence(self) -> list[float]:
        """1 - mean cosine of what goes into a block and what comes out, token by token."""
        m, make = self.maker, partial(influence, self._dense_view, self.maker.calib)
        return list(m.shared.dense(m.calib, m.model_key, "influence block", make).values())

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

    def fit(
        self, keeps: Mapping[str, float], equal: bool = False, fixed: Collection[str] = (), **notes: Any
    ) -> Plan:
        """The plan nearest to these shares."""
        sizes = {name: self._sizes(name) for name in self.shapes}
        floors: dict[str, float] = {name: self._least(name) for name in self.shapes if not sizes[name]}
        floors |= {name: keeps[name] * dense_bytes(self.shapes[name]) for name in fixed}
        return fit(self.plan, self.shapes, keeps, sizes, self.units, floors, equal, **notes)


def _restore(site: Site, dense: Site) -> None:
    """The dense module's weight, bit for bit, and no shift."""
    site.install(Dense(dense.weight(), torch.float32))


def _log_probs(model: Any, ids: Tensor) -> Tensor:
    """Log-probabilities (B, T, V) of the next token behind ids (B, T), float32."""
    logits = model(input_ids=ids.to(next(model.parameters()).device), use_cache=False).logits
    return logits.float().log_softmax(-1)  # type: ignore[no-any-return]
