"""Weights in, terms out: how a layer method is carried over a model."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import ceil, floor

from crunchmark import progress
from crunchmark.allocation import ROUNDING, Uniform
from crunchmark.bench import Bench
from crunchmark.budget import Plan, Unreachable, dense_bytes
from crunchmark.calib import Calibration
from crunchmark.interface import Allocator, Compensator, Keep, Method, ModelMethod, Skip
from crunchmark.maker import Maker, Nothing
from crunchmark.shared import Shared, Stats
from crunchmark.terms import Term, check_finite
from crunchmark.view import Site, View
from crunchmark.walk import Visit, walk

TRIED = "tried"  # note of a plan: its levels are in the cache


def compress(
    method: Method | ModelMethod,
    view: View,
    plan: Plan,
    calib: Calibration,
    model_key: str,
    shared: Shared | None = None,
    repairer: Compensator | None = None,
) -> dict[str, Term]:
    """Compress the model in place; return the terms by layer name ({} where layers are smaller themselves).

    Raises:
        Unreachable: a room can not be met; `needs` and `room` are those of the whole scope.
        Skip: the combination can not work.
        ValueError: what is left of a layer is not finite; names it.
    """
    if isinstance(method, ModelMethod):
        _check_repair(method, repairer)
        if method.rooms and method.likeness is not None:
            maker = Maker(method.likeness, Nothing(), calib, model_key, shared or Shared())
            Layerwise(maker, view, plan).check()
        keep = partial((shared or Shared()).dense, calib, model_key)
        terms = dict(method.compress(view, plan, replace(calib, memo=keep)) or {})
        check_finite(type(method).__name__, view.model.state_dict().items(), plan.dtype)
        return terms
    maker = Maker(method, repairer or Nothing(), calib, model_key, shared or Shared())
    with _advised(maker, view, plan):
        return Layerwise(maker, view, plan).run()


def _check_repair(method: Method | ModelMethod, repairer: Compensator | None) -> None:
    """Raise Skip where a repair is asked of a method that leaves nothing to repair."""
    if isinstance(method, ModelMethod) and repairer not in (None, Nothing()):
        why = "takes no repair" if method.rooms else "leaves no terms to repair"
        raise Skip(f"{type(method).__name__} {why}; valid: compensate=none")


@contextmanager
def _advised(maker: Maker, view: View, plan: Plan) -> Iterator[None]:
    """Inside, where no budget is within reach, an `Unreachable` says what else to change."""
    try:
        yield
    except Unreachable as answer:
        if answer.nearest != 0:
            raise
        shapes = [s.shape for s in view.all_sites() if not maker.method.leaves(s.role)]
        instead = maker.instead(shapes, next(iter(plan.rooms.values())))
        raise Unreachable(answer.what, answer.needs, answer.room, 0.0, answer.least, instead) from None


@contextmanager
def _capped(method: Method | ModelMethod, view: View, plan: Plan) -> Iterator[None]:
    """Inside, an `Unreachable` of an allocator names no budget above the last of a whole-model method."""
    try:
        yield
    except Unreachable as answer:
        if isinstance(method, ModelMethod):
            try:
                method.check(view, plan)
            except Unreachable as own:
                if (own.nearest or 0.0) < (answer.nearest or 0.0):
                    raise own from None
        raise


def allocate(
    allocator: Allocator,
    method: Method | ModelMethod,
    view: View,
    plan: Plan,
    calib: Calibration,
    model_key: str,
    shared: Shared | None = None,
    repairer: Compensator | None = None,
) -> Plan:
    """The plan of an allocator for a method, from one of equal shares; the model is left as it was.

    Raises:
        Skip: the method decides itself what to take where, has no single layers to try, or none to repair.
    """
    _check_repair(method, repairer)  # before a search that nobody would use
    tried: Method | None = method if isinstance(method, Method) else method.likeness
    if isinstance(method, ModelMethod) and allocator != Uniform():
        name = type(method).__name__
        if "allocate" in method.covers:
            raise Skip(f"{name} decides itself what to take where; valid: allocate=uniform")
        if allocator.tries and tried is None:
            raise Skip(f"{name} has no single layers that {type(allocator).__name__} could try")
    if isinstance(method, ModelMethod) and allocator == Uniform() and not method.rooms:
        return plan
    maker = Maker(
        tried or Keep(), repairer or Nothing(), calib, model_key, shared or Shared(), allocator.needs
    )
    maker.method.suits(view.layers())
    with _capped(method, view, plan), _advised(maker, view, plan), Bench(maker, view, plan) as trial:
        found = allocator.allocate(trial, view.layers(), plan.total)
    spent = sum(room.nbytes for room in found.rooms.values())
    if plan.accounting == "bytes" and spent > max(plan.total, 0):
        raise ValueError(f"{type(allocator).__name__} gave {spent} bytes to layers; valid: {plan.total}")
    if allocator == Uniform():
        return found
    return replace(
        found, notes={"allocator": type(allocator).__name__, TRIED: allocator.tries, **found.notes}
    )


class Layerwise:
    """One pass over the blocks: gather, compress, install."""

    def __init__(self, maker: Maker, view: View, plan: Plan) -> None:
        self.maker, self.view, self.plan = maker, view, plan
        self.terms: dict[str, Term] = {}
        self.short: dict[str, Unreachable] = {}
        self.tried = bool(plan.notes.get(TRIED))
        self.dense = maker.calib.inputs == "dense" or not maker.looks

    def run(self) -> dict[str, Term]:
        """All terms, or Unreachable with the size that can be met."""
        with self.maker.gradients(self.view) as slopes:  # of the dense model, whatever the inputs
            self._go(lambda i, sites, stats: self.visit(sites, stats, slopes(i)))
        if self.short:
            raise self.unreachable()
        return self.terms

    def _go(self, visit: Visit) -> None:
        """Visit the blocks with the statistics of their inputs."""
        maker = self.maker
        if self.dense and maker.looks and maker.shared.affords(self.view):
            given = (self.view, maker.calib, maker.model_key, maker.needs)
            with maker.shared.statistics(*given) as block:
                for i in range(len(self.view.blocks)):
                    visit(i, self.view.sites(i), dict(block(i)))
        else:
            walk(self.view, maker.calib, maker.needs, visit)

    def check(self) -> None:
        """Check the rooms of a method that says its sizes, before anything is compressed.

        Raises:
            Unreachable: a layer can not be as small as its room.
        """
        for site in self.view.all_sites():
            room, shape = self.plan.rooms[site.name], site.shape
            needs = self.maker.needs_of(shape, replace(room, nbytes=0))
            given = room.nbytes if room.nominal is None else ceil(room.nominal * dense_bytes(shape) - 1e-6)
            if needs > given:
                least = None if room.nominal is None else needs / dense_bytes(shape)
                self.short[site.name] = Unreachable(site.name, needs, room.nbytes, least=least)
        if self.short:
            raise self.unreachable()

    def unreachable(self) -> Unreachable:
        """What the scope needs; the nearest budget is rounded down, so that it is within reach."""
        shapes, nominal = self.view.layers(), self.plan.accounting == "nominal"
        spared = {s.name for s in self.view.all_sites() if self.maker.method.leaves(s.role)}
        short = {name: u for name, u in self.short.items() if name not in spared}
        sizes = {name: u.needs / dense_bytes(shapes[name]) for name, u in short.items()}
        least = {name: u.least for name, u in short.items() if nominal and u.least is not None}
        worst = max(least.values() if nominal else sizes.values(), default=0.0)
        blocks, whole = self.view.scope_bytes("blocks"), self.view.scope_bytes(self.plan.scope)
        rounding = 0 if nominal else ROUNDING
        kept = sum(dense_bytes(shapes[name]) for name in spared)
        needs = ceil(kept + max(sizes.values(), default=0.0) * (blocks - kept))
        while True:
            share = 1 - (kept + worst * (blocks - kept) + whole - blocks + rounding) / whole
            nearest = max(0.0, floor(share * 1e4 + 1e-9) / 1e4)
            given = ((1 - nearest) * whole - whole + blocks - kept) / max(1, blocks - kept)
            if nominal or not nearest or (worst := self._worst(given, spared)) <= given:
                return Unreachable("budget", needs, self.plan.total, nearest)

    def _worst(self, share: float, spared: Collection[str]) -> float:
        """The share that a layer needs at least, where all have this one: it, if that is enough for all."""
        found = [share]
        for name, shape in self.view.layers().items():
            room = replace(self.plan.rooms[name], nbytes=int(share * dense_bytes(shape)))
            needs = self.maker.needs_of(shape, room)
            if name not in spared and needs > room.nbytes:
                found.append(needs / dense_bytes(shape))
        return max(found)

    def visit(self, sites: list[Site], stats: Stats, slopes: Stats) -> None:
        """Compress one block's layers."""
        make = self.maker.level if self.tried and self.dense else self.maker.term
        for site in sites:
            progress.step(len(self.terms) + len(self.short), len(self.plan.rooms), "layer")
            known = {**stats.get(site.name, {}), **slopes.get(site.name, {})}
            layer = self.maker.layer(site, known, self.dense)
            try:
                term = make(layer, self.plan.rooms[site.name])
            except Unreachable as answer:
                self.short[site.name] = answer
                continue
            self.terms[site.name] = term
            site.install(term)
