"""Terms for single layers: what a method is shown, what it may use, and what becomes of what it found."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from crunchmark.budget import Ledger, Room, Unreachable, dense_bytes
from crunchmark.cache import source_of
from crunchmark.calib import Calibration
from crunchmark.checks import first_line, naming
from crunchmark.fisher import Fisher
from crunchmark.interface import Compensator, Layer, Method
from crunchmark.keys import key_of
from crunchmark.seeds import NUMERICS, seed_of
from crunchmark.shared import Shared, Stats
from crunchmark.stats import InputStat, Stat
from crunchmark.terms import Dense, Term, check_finite
from crunchmark.view import Site, View

T = TypeVar("T")


@dataclass(frozen=True)
class Nothing(Compensator):
    """Leaves terms as they are."""

    def reserve(self, shape: tuple[int, int], room: Room) -> int:
        """No byte."""
        return 0

    def repair(self, layer: Layer, term: Term, room: Room) -> Term:
        """The term."""
        return term


def around(repairer: Compensator, size: int, shape: tuple[int, int], room: Room, start: int = 0) -> int:
    """Bytes of the smallest room, of at least `start`, that leaves `size` beside what a repair takes of it.

    A repair takes whole ranks, so that a larger room may leave less.
    room: only its dtype and accounting count.
    """
    whole = max(start, size)
    while (more := size + repairer.reserve(shape, replace(room, nbytes=whole))) > whole:
        whole = more
    return whole


@contextmanager
def _solved() -> Iterator[None]:
    """Inside, a decomposition that does not converge is a complaint about numbers, as others are."""
    try:
        yield
    except LinAlgError as error:
        raise ValueError(first_line(error)) from error


@dataclass(frozen=True)
class Maker:
    """A layer method and a compensator at work on one model's layers."""

    method: Method
    repairer: Compensator
    calib: Calibration
    model_key: str
    shared: Shared
    wanted: tuple[type[Stat], ...] = ()  # statistics that somebody else wants to see

    @property
    def needs(self) -> tuple[type[Stat], ...]:
        """Statistics of the method and of the compensator."""
        return tuple(dict.fromkeys((*self.method.needs, *self.repairer.needs, *self.wanted)))

    @property
    def looks(self) -> bool:
        """Whether anybody needs to know the layers' inputs."""
        return any(issubclass(kind, InputStat) for kind in self.needs)

    @contextmanager
    def gradients(self, view: View) -> Iterator[Callable[[int], Stats]]:
        """Inside, from a block's index to its squared gradients, which are none where nobody needs them."""
        if Fisher not in self.needs:
            yield lambda i: {}
            return
        with self.shared.gradients(view, self.calib, self.model_key) as found:
            yield found

    def instead(self, shapes: Iterable[tuple[int, int]], room: Room) -> str:
        """What else to ask for, where layers of these shapes can not be made and repaired at any budget."""
        if self.repairer == Nothing() or room.nominal is not None:
            return ""
        return self.repairer.instead({s: dense_bytes(s) - 1 - self._least(s, room) for s in shapes}, room)

    def needs_of(self, shape: tuple[int, int], room: Room) -> int:
        """Bytes of the smallest room from this one on that holds a term of that shape and its repair."""
        needs = around(self.repairer, self._least(shape, room), shape, room, room.nbytes)
        return min(needs, dense_bytes(shape))

    def _least(self, shape: tuple[int, int], room: Room) -> int:
        return (self.method.sizes(shape, room) or [self.method.least(shape, room)])[0]

    @property
    def _tokens(self) -> str:
        """Of the tokens that terms depend on."""
        return self.calib.key if self.method.needs or self.repairer.needs else ""

    def layer(self, site: Site, stats: Mapping[type[Stat], Stat], dense: bool) -> Layer:
        """The record the method sees.

        dense: the statistics are those of the dense model, so that its memos serve other cells too.
        """

        def memo(key: str, make: Callable[[], T]) -> T:
            return self._kept(site, dense, make, kind=key, source=self._source, knobs=repr(self.method))

        def common(key: str, make: Callable[[], T]) -> T:
            return self._kept(site, dense, make, common=key)

        seed = seed_of(self.calib.seed, site.name) if self.method.random else 0
        return Layer(site.name, site.weight().cpu(), stats, seed, memo, common)

    @property
    def _source(self) -> str:
        return source_of(self.method)

    def _kept(self, site: Site, dense: bool, make: Callable[[], T], **parts: Any) -> T:
        if not dense:
            return make()
        tokens = self._tokens or (self.calib.key if self.needs else "")
        key = key_of(**parts, model=self.model_key, tokens=tokens, layer=site.name, numerics=NUMERICS)
        return self.shared.derived(key, make)

    def _key(self, name: str, room: Room) -> str:
        """Everything that decides the term of that layer of the dense model in that room."""
        parts = {"source": self._source, "knobs": repr(self.method), "repair": repr(self.repairer)}
        parts |= {"mended": source_of(self.repairer), "model": self.model_key, "layer": name}
        seed = self.calib.seed if self.method.random else 0
        size = (room.nbytes, room.nominal, str(room.dtype))
        return key_of(**parts, tokens=self._tokens, seed=seed, room=size, numerics=NUMERICS)

    def key_of_model(self, rooms: Mapping[str, Room], **asked: Any) -> str:
        """Everything that decides what is asked of the model with terms in these rooms."""
        return key_of(model=self.model_key, rooms={n: self._key(n, r) for n, r in rooms.items()}, **asked)

    def level(self, layer: Layer, room: Room) -> Term:
        """`term` of a layer of the dense model, made once and found again on disk."""
        return self.shared.term(self._key(layer.name, room), lambda: self.term(layer, room))

    def term(self, layer: Layer, room: Room) -> Term:
        """Dense where the room allows it, the method's term and its repair otherwise; never above the room.

        Raises:
            Unreachable: the room is too small; `needs` counts the repair.
            ValueError: it is not finite, takes more than the room, or could not be found; names the layer.
        """
        with naming(layer.name), _solved():
            term = Dense.of(layer.weight, room) if room.whole(layer.shape) else self._filled(layer, room)
            maker = type(self.method).__name__
            check_finite(maker, term.named_buffers(), room.dtype)
            if room.nominal is None and (size := term.nbytes()) > room.nbytes:
                valid = f"a term within the room of {room.nbytes} bytes, or Unreachable raised"
                raise ValueError(f"{maker}: its term takes {size} bytes; valid: {valid}")
        return term

    def _filled(self, layer: Layer, room: Room) -> Term:
        ledger, taken = Ledger(room), self.repairer.reserve(layer.shape, room)
        if room.nominal is None:  # in the papers' own count a repair comes on top
            ledger.reserve(min(taken, room.nbytes))
        try:
            term = self.method.compress(layer, ledger.room)
        except Unreachable as answer:
            needs = around(self.repairer, answer.needs, layer.shape, room, room.nbytes)
            needs = min(needs, dense_bytes(layer.shape))
            raise Unreachable(answer.what, needs, room.nbytes, least=answer.least) from None
        return self.repairer.repair(layer, term, room)
