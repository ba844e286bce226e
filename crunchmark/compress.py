"""Weights in, terms out: how a layer method is carried over a model."""

from collections.abc import Callable, Mapping
from math import ceil, floor
from typing import TypeVar

from crunchmark.budget import Ledger, Plan, Room, Unreachable, dense_bytes
from crunchmark.cache import key_of, source_of
from crunchmark.calib import Calibration
from crunchmark.interface import Layer, Method, ModelMethod
from crunchmark.seeds import NUMERICS, seed_of
from crunchmark.shared import Shared, Stats
from crunchmark.stats import Stat
from crunchmark.terms import Dense, Term
from crunchmark.view import Site, View
from crunchmark.walk import walk

T = TypeVar("T")


def compress(
    method: Method | ModelMethod,
    view: View,
    plan: Plan,
    calib: Calibration,
    model_key: str,
    shared: Shared | None = None,
) -> dict[str, Term]:
    """Compress the model in place; return the terms by layer name ({} for a whole-model method).

    Raises:
        Unreachable: a room can not be met; `needs` and `room` are those of the whole scope.
        Skip: the combination can not work.
    """
    if isinstance(method, ModelMethod):
        method.compress(view, plan, calib)
        return {}
    return Layerwise(method, view, plan, calib, model_key, shared or Shared()).run()


class Layerwise:
    """One pass over the blocks: gather, compress, install."""

    def __init__(
        self, method: Method, view: View, plan: Plan, calib: Calibration, model_key: str, shared: Shared
    ) -> None:
        self.method, self.view, self.plan, self.calib = method, view, plan, calib
        self.model_key, self.shared = model_key, shared
        self.terms: dict[str, Term] = {}
        self.short: dict[str, Unreachable] = {}
        self.tokens_key = calib.key if method.needs else ""
        self.dense = calib.inputs == "dense" or not method.needs

    def run(self) -> dict[str, Term]:
        """All terms, or Unreachable with the size that can be met."""
        if self.dense and self.method.needs and self.shared.affords(self.view):
            with self.shared.statistics(self.view, self.calib, self.model_key) as block:
                for i in range(len(self.view.blocks)):
                    self.visit(i, self.view.sites(i), block(i))
        else:
            walk(self.view, self.calib, self.method.needs, self.visit)
        if self.short:
            raise self.unreachable()
        return self.terms

    def unreachable(self) -> Unreachable:
        """What the scope needs; the nearest budget is rounded down, so that it is within reach."""
        shapes, nominal = self.view.layers(), self.plan.accounting == "nominal"
        sizes = {name: u.needs / dense_bytes(shapes[name]) for name, u in self.short.items()}
        least = {name: u.least for name, u in self.short.items() if nominal and u.least is not None}
        worst = max(least.values() if nominal else sizes.values())
        blocks, whole = self.view.scope_bytes("blocks"), self.view.scope_bytes(self.plan.scope)
        rounding = 0 if nominal else 2  # bytes, of total and room
        share = 1 - (worst * blocks + whole - blocks + rounding) / whole
        nearest = max(0.0, floor(share * 1e4 + 1e-9) / 1e4)
        return Unreachable("budget", ceil(max(sizes.values()) * blocks), self.plan.total, nearest)

    def visit(self, _: int, sites: list[Site], stats: Stats) -> None:
        """Compress one block's layers."""
        for site in sites:
            layer = self.layer(site, stats.get(site.name, {}))
            room = Ledger(self.plan.rooms[site.name]).room
            try:
                term = self.one(layer, site, room)
            except Unreachable as answer:
                self.short[site.name] = answer
                continue
            self.terms[site.name] = term
            site.install(term)

    def one(self, layer: Layer, site: Site, room: Room) -> Term:
        """Dense where the room allows it, the method's term otherwise; never more than the room."""
        full = dense_bytes(self.view.layers()[site.name])
        if (room.nominal is None and room.nbytes >= full) or (room.nominal is not None and room.nominal >= 1):
            return Dense.of(layer.weight, room)
        term = self.method.compress(layer, room)
        if room.nominal is None and term.nbytes() > room.nbytes:
            raise Unreachable(site.name, term.nbytes(), room.nbytes)
        return term

    def layer(self, site: Site, stats: Mapping[type[Stat], Stat]) -> Layer:
        """The record the method sees; its memo is shared by cells that see the same numbers."""

        def memo(key: str, make: Callable[[], T]) -> T:
            if not self.dense:
                return make()
            parts = {"kind": key, "source": source_of(self.method), "knobs": repr(self.method)}
            seen = {"model": self.model_key, "tokens": self.tokens_key, "layer": site.name}
            return self.shared.derived(key_of(**parts, **seen, numerics=NUMERICS), make)

        weight = site.weight().cpu()
        seed = seed_of(self.calib.seed, site.name) if self.method.random else 0
        return Layer(site.name, weight, stats, seed, memo)
