"""What cells share: statistics of the dense model and what was derived from them, found by content.

On disk under the cache, so that other processes and later runs find them, and a few in memory.
"""

import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from torch import Tensor

from crunchmark.cache import Cache
from crunchmark.calib import Calibration
from crunchmark.files import write_json
from crunchmark.fisher import Fisher, gather
from crunchmark.keys import key_of
from crunchmark.linalg import Spectrum
from crunchmark.seeds import NUMERICS
from crunchmark.stats import Gram, InputMean, InputNorm, InputStat, Stat
from crunchmark.tensorfile import load, save
from crunchmark.terms import Term, unpack
from crunchmark.view import Site, View
from crunchmark.walk import walk

T = TypeVar("T")
Stats = Mapping[str, Mapping[type[Stat], Stat]]
CHEAP: tuple[type[InputStat], ...] = (InputNorm, InputMean)  # vectors: a pass costs next to nothing more
KINDS: tuple[type[InputStat], ...] = (Gram, *CHEAP)  # whoever asked for a Gram: one pass serves all
MEMORY = 2 * 10**9  # bytes of tensors kept in memory
GRAM_BYTES = 8  # a Gram is float64
RECORD = "record.safetensors"
META = "meta.json"
SUMS = "statistics"
LEVELS = "levels"  # terms that an allocator tried
SAVED: Mapping[type, str] = {Spectrum: "spectra"}  # which derived records are worth a file


class Shared:
    """Statistics and spectra of dense models. `cache`: None keeps them in memory only."""

    def __init__(self, cache: Cache | None = None, memory: int = MEMORY) -> None:
        self.cache, self.memory = cache, memory
        self._found: OrderedDict[str, Any] = OrderedDict()
        self._levels: set[str] = set()  # keys of terms that were made here
        self._warned = False

    def affords(self, view: View) -> bool:
        """Whether the statistics of all blocks may take a quarter of the cache, or of the memory."""
        widths = {(i, s.group): s.shape[1] for i in range(len(view.blocks)) for s in view.sites(i)}
        size = sum(GRAM_BYTES * w * w for w in widths.values())
        return size <= (self.memory if self.cache is None else self.cache.limit) / 4

    @contextmanager
    def statistics(
        self, view: View, calib: Calibration, model_key: str, needs: Sequence[type[Stat]] = KINDS
    ) -> Iterator[Callable[[int], Stats]]:
        """Inside, a function from a block's index to the statistics of its layers, by name.

        The walk is made once for a model and a set of tokens, and gathers all kinds; but for needs that
        are all cheap, nobody having paid for the others yet, those.
        """
        kinds = KINDS if Gram in needs or self._has(_named(KINDS, calib, model_key)) else CHEAP
        key = _named(kinds, calib, model_key)
        if self.cache is None:
            found: dict[int, Stats] = self.get(key, lambda: _gather(view, calib, kinds))
            yield found.__getitem__
            return
        with self.cache.folder(SUMS, key, lambda temp: _write(view, calib, kinds, temp)) as folder:
            yield lambda i: self.get(f"{key}/{i}", lambda: _read(folder, view.sites(i), kinds, i))

    @contextmanager
    def gradients(self, view: View, calib: Calibration, model_key: str) -> Iterator[Callable[[int], Stats]]:
        """Inside, a function from a block's index to the squared gradients of its layers, by name.

        The backward pass is made once for a model and a set of tokens; in a folder that goes again where
        they would take more than a quarter of the cache.
        """
        key = key_of(model=model_key, tokens=calib.key, kind=Fisher.__name__, numerics=NUMERICS)
        if self.cache is None:
            found: dict[int, Stats] = self.get(key, lambda: _slopes(view, calib))
            yield found.__getitem__
            return
        with ExitStack() as stack:
            if view.scope_bytes("blocks") <= self.cache.limit / 4:
                write = partial(_write_slopes, view, calib)
                folder = stack.enter_context(self.cache.folder("gradients", key, write))
            else:
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="crunchmark-")))
                _write_slopes(view, calib, folder)
            yield lambda i: self.get(f"{key}/{i}", lambda: _read_slopes(folder / f"{i}.safetensors"))

    def _has(self, key: str) -> bool:
        """Whether the statistics of that key are there already."""
        return key in self._found or (self.cache is not None and (self.cache.root / SUMS / key).is_dir())

    def derived(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gives under a key that names all it depends on; records of SAVED also go to disk."""
        return self.get(key, lambda: self._stored(key, make))

    def dense(self, calib: Calibration, model_key: str, name: str, make: Callable[[], T]) -> T:
        """What `make` gives of a dense model and a set of tokens, under a name; in memory only."""
        return self.get(key_of(model=model_key, tokens=calib.key, name=name, numerics=NUMERICS), make)

    def _stored(self, key: str, make: Callable[[], T]) -> T:
        if self.cache is None:
            return make()
        for record, kind in SAVED.items():
            if (self.cache.root / kind / key).is_dir():
                with self.cache.folder(kind, key, lambda temp: _save(make(), temp)) as folder:
                    return record(**load(folder / RECORD))  # type: ignore[no-any-return]
        value = make()
        if type(value) in SAVED:
            with self.cache.folder(SAVED[type(value)], key, lambda temp: _save(value, temp)):
                pass
        return value

    def term(self, key: str, make: Callable[[], Term]) -> Term:
        """The term that `make` gives under a key that names all it depends on; it also goes to disk."""
        return self.get(key, lambda: self._level(key, lambda: self._noted(key, make)))

    def _noted(self, key: str, make: Callable[[], Term]) -> Term:
        """What `make` gives; that it was given before, and neither memory nor cache held it, is said once."""
        if key in self._levels and self.cache is not None and not self._warned:
            self._warned = True
            size = f"cache.max_gb={self.cache.limit / 1e9:g}"
            sys.stderr.write(
                f"warning: {size} is too little for an allocator's levels; some are made again\n"
            )
        term = make()
        self._levels.add(key)
        return term

    def _level(self, key: str, make: Callable[[], Term]) -> Term:
        if self.cache is None:
            return make()
        with self.cache.folder(LEVELS, key, lambda temp: _save_term(make(), temp)) as folder:
            told = json.loads((folder / META).read_text(encoding="utf-8"))
            term = unpack(load(folder / RECORD), told["meta"])
        term.setting, term.notes = told["setting"], told["notes"]
        return term

    def clear(self) -> None:
        """Forget what is in memory."""
        self._found.clear()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """What is in memory under the key, made where it is not; what was used longest ago is dropped."""
        if key in self._found:
            self._found.move_to_end(key)
            found: T = self._found[key]
            return found
        result = self._found[key] = make()
        while sum(_bytes(v) for v in self._found.values()) > self.memory and len(self._found) > 1:
            self._found.popitem(last=False)
        return result


def _bytes(value: Any) -> int:
    """Bytes of the tensors a value holds, whatever it is made of."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(_bytes(v) for v in {id(v): v for v in value.values()}.values())
    if is_dataclass(value):
        return sum(_bytes(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, Term):
        return sum(t.nbytes for t in value.buffers())
    return _bytes(vars(value)) if isinstance(value, Stat) else 0


def _named(kinds: Sequence[type[Stat]], calib: Calibration, model_key: str) -> str:
    """The key of these statistics."""
    names = [kind.__name__ for kind in kinds]
    return key_of(model=model_key, tokens=calib.key, kinds=names, numerics=NUMERICS)


def _gather(view: View, calib: Calibration, kinds: Sequence[type[Stat]]) -> dict[int, Stats]:
    """The statistics of every block of the model as it is now."""
    found: dict[int, Stats] = {}
    walk(view, calib, kinds, lambda i, sites, stats: found.update({i: stats}))
    return found


def _slopes(view: View, calib: Calibration) -> dict[int, Stats]:
    """The squared gradients of every block of the model as it is now."""
    found: dict[int, Stats] = {}
    gather(view, calib, lambda i, fishers: found.update({i: {n: {Fisher: f} for n, f in fishers.items()}}))
    return found


def _write_slopes(view: View, calib: Calibration, folder: Path) -> None:
    """One file per block, written as the backward pass goes by."""

    def visit(i: int, fishers: Mapping[str, Fisher]) -> None:
        save({name: fisher.mean for name, fisher in fishers.items()}, folder / f"{i}.safetensors")

    gather(view, calib, visit)


def _read_slopes(file: Path) -> Stats:
    """The squared gradients of a block."""
    return {name: {Fisher: Fisher(mean)} for name, mean in load(file).items()}


def _write(view: View, calib: Calibration, kinds: Sequence[type[Stat]], folder: Path) -> None:
    """One file per block, written as the walk goes by: memory holds one block's statistics."""

    def visit(i: int, sites: list[Site], stats: Stats) -> None:
        groups = {site.group: stats[site.name] for site in sites}
        tensors = {
            f"{group}/{kind.__name__}/{name}": tensor
            for group, by_kind in groups.items()
            for kind, stat in by_kind.items()
            for name, tensor in stat.state().items()
        }
        save(tensors, folder / f"{i}.safetensors")

    walk(view, calib, kinds, visit)


def _read(folder: Path, sites: list[Site], kinds: Sequence[type[Stat]], i: int) -> Stats:
    """The statistics of block i; layers of one group share theirs."""
    states: dict[tuple[str, str], dict[str, Tensor]] = {}
    for full, tensor in load(folder / f"{i}.safetensors").items():
        group, kind, name = full.split("/")
        states.setdefault((group, kind), {})[name] = tensor
    groups: dict[str, Mapping[type[Stat], Stat]] = {
        group: {kind: kind.load(states[group, kind.__name__]) for kind in kinds}
        for group in {site.group for site in sites}
    }
    return {site.name: groups[site.group] for site in sites}


def _save_term(term: Term, folder: Path) -> None:
    """A packed term and what it says of itself."""
    tensors, meta = term.pack()
    save({name: t.contiguous() for name, t in tensors.items()}, folder / RECORD)
    write_json(folder / META, {"meta": meta, "setting": term.setting, "notes": dict(term.notes)})


def _save(value: Any, folder: Path) -> None:
    """A record of tensors."""
    save({f.name: getattr(value, f.name) for f in fields(value)}, folder / RECORD)
