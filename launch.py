"""What stands between the command line and a cell: refused targets, one-line errors, progress lines."""

import difflib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import get_object, instantiate

from crunchmark.progress import named
from live import MODES, shown

PREFIXES = ("crunchmark.", "methods.", "tasks.")
FAILED: list[int] = []  # exit codes of what went wrong in this process
LONGEST = 600  # characters of an error
FULL_ERROR = "HYDRA_FULL_ERROR"
DEBUG = bool(os.environ.get(FULL_ERROR))  # the user wants stack traces
GROUPS = ("model", "method", "allocate", "compensate", "calib", "task", "track")
COMPLAINTS = (ValueError, OSError)  # what our own checks raise: a line is enough
OF_GRIDS = ("hydra.sweeper.grids", "hydra.sweeper.part")  # there are none but in an experiment
SECRET = re.compile(r"https?://([^/\s\"']*@|\S*[?&][\w-]*(key|token|secret)[\w-]*=)", re.IGNORECASE)


def check_targets(node: Any) -> None:
    """Every `_target_` must start with one of ours.

    Raises:
        ValueError: one does not; names it.
    """
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not str(target).startswith(PREFIXES):
            raise ValueError(f"_target_={target!r} is refused; valid: a name under {', '.join(PREFIXES)}")
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        check_targets(child)


def check_choices(config: dict[str, Any], choices: Mapping[str, Any]) -> None:
    """Every stage must be there, and once; only tasks may be several in one cell.

    Raises:
        ValueError: a stage is missing or is a list; names it.
    """
    for name in GROUPS:
        if not config.get(name):
            raise ValueError(f"{name} is missing; valid: one of the names that `--help` lists under {name}")
        if name != "task" and not isinstance(choices.get(name), str):
            raise ValueError(f"{name} names several entries; valid: one, or a grid with -m {name}=a,b")


def check_mode(hydra: Any) -> None:
    """Several grids are a sweep; a single run would take none of them.

    Raises:
        ValueError: there are grids, and no -m.
    """
    grids, name = hydra.sweeper.get("grids"), hydra.runtime.choices.get("experiment")
    if grids and hydra.mode == RunMode.RUN:
        asked = f"experiment={name}" if name else OF_GRIDS[0]
        raise ValueError(
            f"{asked} has grids, of which one run would take none; valid: -m {asked}, to run them all"
        )


def check_words(words: Iterable[str]) -> None:
    """No address with a key in it: Hydra writes what is on the command line into a file before anything runs.

    Raises:
        ValueError: a word has one, which is not repeated; names the option.
    """
    for word in words:
        if SECRET.search(word):
            name = word.partition("=")[0].lstrip("+~")
            raise ValueError(
                f"{name} holds an address with a user or a key; valid: the address alone, and the key in an "
                "environment variable (of a judge: the one that key_env names)"
            )


@cache
def runner(store: str, folder: str, max_gb: float) -> Any:
    """One runner per store and cache, so that the cells of a sweep share what is in memory."""
    for name, value in (("store", store), ("cache.dir", folder)):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name}={value!r} is no folder; valid: a path")
    from crunchmark.cache import Cache
    from crunchmark.pipeline import Runner
    from crunchmark.store import Store

    return Runner(Store(store), Cache(folder, max_gb))


def check_progress(mode: Any) -> None:
    """Refuse a way to show progress that there is not.

    Raises:
        ValueError: names the ways.
    """
    if mode not in MODES:
        raise ValueError(f"progress={mode!r} is unknown; valid: {', '.join(MODES)}")


def say(cell: Any, rows: list[dict[str, Any]], quiet: bool = False) -> None:
    """One line per finished cell."""
    if quiet:
        return
    row = rows[-1] if rows else {}
    if row.get("reason"):
        text = f"{row['state']}: {row['reason']}"
    else:
        text = f"{row['achieved_bytes']:.1%} removed, {row['file_bytes'] / 1e6:.2f} MB on disk"
        text += f", {row['setting']}" if row.get("setting") else ""
    stages = "".join(f" {name}={named(spec)}" for name, spec in cell.stages.items())
    sys.stderr.write(f"{cell.label} budget={cell.budget:g}{stages}: {text}\n")


def one_line(error: BaseException) -> str:
    """What a user needs to know of an error, Hydra's own included."""
    cause: Any = error.__cause__
    where, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    if where and parent is not None:
        if where in OF_GRIDS:
            return f"error: {where} belongs to an experiment; valid: beside -m experiment=NAME"
        return f"error: {no_field(str(where), [str(k) for k in parent])}"
    if isinstance(error, OSError) and error.filename:
        return f"error: {error.strerror}: {error.filename}; valid: cache.dir and store that can be written to"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"error: {'; '.join(lines)[:LONGEST]}"


def no_field(where: str, names: Iterable[str]) -> str:
    """That an option is not there, what is near it, and what there is."""
    valid = sorted(names)
    if not valid:
        return f"{where} is no field; valid: {where.rpartition('.')[0]}=VALUE, which has none of its own"
    near = difflib.get_close_matches(where.rpartition(".")[2], valid, n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"{where} is no field{hint}; valid: {', '.join(valid)}"


def strangers(node: Any, where: str) -> Iterator[str]:
    """What is wrong with options of a config that its `_target_`, or one inside it, does not take."""
    if not isinstance(node, dict):
        return
    if "_target_" in node and (lost := lacking(str(node["_target_"]))):
        yield f"{where}._target_={lost}"
    takes = taken(node.get("_target_"))
    yield from (
        no_field(f"{where}.{key}", takes) for key in node if takes and key not in {*takes, "_target_"}
    )
    for key, child in node.items():
        yield from strangers(child, f"{where}.{key}")


def lacking(target: str) -> str:
    """That a `_target_` leads nowhere, and where it could; empty where it leads somewhere."""
    place, _, wanted = target.rpartition(".")
    try:
        get_object(target)
        return ""
    except Exception:  # what is wrong with it is told below
        pass
    try:
        there = {k: f"{place}.{k}" for k, v in vars(import_module(place)).items() if _of(v, place)}
    except Exception as error:
        package, _, wanted = str(getattr(error, "name", "")).rpartition(".")
        if not isinstance(error, ModuleNotFoundError) or not f"{place}.".startswith(f"{error.name}."):
            return f"{target!r} can not be imported: {type(error).__name__}: {error}"
        inside = iter_modules(getattr(import_module(package), "__path__", None) or [])
        there = {found.name: f"{package}.{found.name}" for found in inside}
    near = difflib.get_close_matches(wanted, there, n=3, cutoff=0.5)
    names = ", ".join(there[k] for k in near or sorted(there)) or "a class of a module"
    return f"{target!r} is not there; {'nearest' if near else 'valid'}: {names}"


def _of(thing: Any, place: str) -> bool:
    return inspect.isclass(thing) and thing.__module__ == place


def taken(target: Any) -> list[str]:
    """Names of what a target takes; none where nobody knows, or it takes anything."""
    try:
        takes = inspect.signature(get_object(str(target))).parameters
    except (ImportError, ValueError, TypeError):
        return []
    anything = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes.values())
    return [] if anything else list(takes)


def made(config: dict[str, Any], name: str, *kinds: type) -> Any:
    """The object a config describes.

    Raises:
        ValueError: it can not be made, or is of another kind.
    """
    target = config.get("_target_")
    try:
        thing = instantiate(config)
    except InstantiationException as error:
        if isinstance(error.__cause__, COMPLAINTS):
            raise error.__cause__ from None  # what the object itself complained of
        why = next(strangers(config, name), one_line(error)[7:])
        raise ValueError(f"{name} can not be made of _target_={target!r}: {why}") from error
    if not isinstance(thing, kinds):
        valid = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name}: _target_={target!r} is of another kind; valid: a {valid}")
    return thing


def fail(error: BaseException, code: int) -> None:
    """Say it, let the sweep go on, exit with the code at the end: 1 a cell failed, 2 it could not be one."""
    known = isinstance(error, COMPLAINTS)
    text = one_line(error) if known else f"error: {type(error).__name__}: {error}"
    if DEBUG or not known:
        text = "".join(traceback.format_exception(error)) + text
    FAILED.append(code)
    sys.stderr.write(text + "\n")


@contextmanager
def _handed_over() -> Iterator[None]:
    """Inside, Hydra hands its exceptions over instead of printing them; after it all is as before."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        del os.environ[FULL_ERROR]
        if before is not None:
            os.environ[FULL_ERROR] = before


def in_sweep(words: list[str]) -> list[str]:
    """Options of a group that a sweep or its experiment varies, made part of the sweep.

    Hydra composes a config before the sweep, with the group's default, which may not have such an option.
    Quoted and cast values stay as they are: a choice of one would unquote them.
    """
    if not {"-m", "--multirun"} & set(words):
        return words
    parser = OverridesParser.create()
    options = [word for word in words if re.match(r"[a-z][^=]*=[^\"']", word)]
    try:
        parsed = {word: parser.parse_override(word) for word in options}
    except HydraException:
        return words  # Hydra says what is wrong with it
    varied = {str(found.key_or_group) for found in parsed.values() if found.is_sweep_override()}
    whole = any(found.key_or_group == "experiment" for found in parsed.values())

    def part(word: str) -> str:
        name, _, value = word.partition("=")
        group, dot, _ = name.partition(".")
        plain = word in parsed and not parsed[word].is_sweep_override() and not re.match(r"\w+\(", value)
        if dot and plain and group in GROUPS and (whole or group in varied):
            return f"{name}=choice({value})"
        return word

    return [part(word) for word in words]


def guarded(main: Callable[[], Any]) -> int:
    """Run Hydra's main; the exit code: 0 all well, 1 a cell failed, 2 something named is not valid."""
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    plus = "+experiment="  # as Hydra wants it where there is no default
    sys.argv[1:] = [word[1:] if word.startswith(plus) else word for word in sys.argv[1:]]
    try:
        check_words(sys.argv[1:])
        sys.argv[1:] = in_sweep(sys.argv[1:])
        with _handed_over(), shown():
            main()
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130
    except Exception as error:
        if DEBUG:
            raise
        sys.stderr.write(one_line(error) + "\n")
        return 2
    return max(FAILED, default=0)
