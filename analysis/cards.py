"""Method cards: docs/methods.md, made from the docstrings of methods/ and the notes of conf/method/.

python -m analysis.cards [--check]
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from analysis.notes import Note, Option, knobs

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs") / "methods.md"
CONTRACTS = {"Method": "layer", "Keep": "layer", "ModelMethod": "whole model", "Compensator": "repair"}
GROUPS = {"method": "", "compensate": "compensate="}  # folder of conf/ -> what stands before a card's name
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
HEAD = """# Methods

Written by `python -m analysis.cards` from the docstrings in `methods/` and the notes in `conf/method/`; a
test fails when it is stale. How to add one: [tutorial](tutorial.md). What the contracts are:
[ADR 1](adr/0001-two-method-contracts.md). *Published* is what a paper or a repository reports on its own
model and data, not a number of ours; how it counts: [budgets](budgets.md).

Of all these only gqsa trains, on calibration text. Methods that are their training (PELA, TRP, Maestro) have
no card; of welore, compactifai, dsformer, lq_lora and int2_1 the cards say which part is missing.
"""


@dataclass(frozen=True)
class Source:
    """A method's class as text: nothing is imported, so no torch either."""

    module: ast.Module
    name: str
    root: Path

    @cached_property
    def node(self) -> ast.ClassDef:
        """The class."""
        return _class(self.module, self.name)

    @cached_property
    def lineage(self) -> list[ast.ClassDef]:
        """The class and those of the core it builds on, up to a contract."""
        found = [self.node]
        while _base(found[-1]) not in CONTRACTS:
            found.append(_core_class(self.root, _base(found[-1])))
        return found

    @property
    def paper(self) -> str:
        """The module's first line."""
        return (ast.get_docstring(self.module) or "").splitlines()[0]

    @property
    def contract(self) -> str:
        """`layer (Method)` or `whole model (ModelMethod)`."""
        return f"{CONTRACTS[_base(self.lineage[-1])]} (`{_base(self.node)}`)"

    def names(self, attribute: str) -> list[str]:
        """What a class attribute such as `needs` lists."""
        lines = [n for node in self.lineage for n in node.body]
        found = [n.value for n in lines if isinstance(n, ast.Assign) and _target(n) == attribute]
        return [ast.unparse(item) for value in found[:1] for item in getattr(value, "elts", [])]

    @property
    def asked(self) -> list[str]:
        """The statistics of `needs`, and where it is a property the knob that asks for them."""
        chosen = [n for n in self.node.body if isinstance(n, ast.FunctionDef) and n.name == "needs"]
        made = [n for f in chosen for n in ast.walk(f) if isinstance(n, ast.IfExp)]
        where = [
            (f"`{ast.unparse(stat)}` where", n.test) for n in made for stat in getattr(n.body, "elts", [])
        ]
        told = [f"{stat} `{ast.unparse(test).replace('self', 'method')}`" for stat, test in where]
        return told or [f"`{name}`" for name in self.names("needs")]

    @property
    def fields(self) -> dict[str, str]:
        """Knob -> default of the dataclass, "" where there is none."""
        lines = [n for node in reversed(self.lineage) for n in node.body]
        made = [n for n in lines if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
        return {ast.unparse(n.target): ast.unparse(n.value) if n.value else "" for n in made}

    @property
    def prose(self) -> str:
        """The class docstring up to where it explains knobs, as one paragraph."""
        return " ".join(self._docstring(self.node)[0].split())

    @property
    def meanings(self) -> dict[str, str]:
        """Knob -> what the class docstring says of it."""
        parts = [part for node in reversed(self.lineage) for part in self._docstring(node)[1:]]
        return {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}

    def _docstring(self, node: ast.ClassDef) -> list[str]:
        """Prose, then knob, meaning, knob, meaning ..."""
        text = ast.get_docstring(node) or ""
        if not self.fields:
            return [text]
        return re.split(rf"(?:^|\s)({'|'.join(self.fields)}): ", text)


def _target(node: ast.Assign) -> str:
    return node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""


def _class(module: ast.Module, name: str) -> ast.ClassDef:
    """The class of that name."""
    return next(n for n in module.body if isinstance(n, ast.ClassDef) and n.name == name)


def _base(node: ast.ClassDef) -> str:
    """What a class builds on."""
    return ast.unparse(node.bases[0])


@cache
def _core_class(root: Path, name: str) -> ast.ClassDef:
    """A class of the core, wherever it is written."""
    texts = (path.read_text(encoding="utf-8") for path in sorted((root / "crunchmark").glob("*.py")))
    return _class(ast.parse(next(text for text in texts if f"\nclass {name}(" in text)), name)


def source(target: str, root: Path) -> Source:
    """The class that a `_target_` such as methods.gptq.GPTQ names.

    Raises:
        ValueError: there is none; names those of the module.
    """
    module, _, name = target.rpartition(".")
    path = root / (module.replace(".", "/") + ".py")
    if not path.is_file():
        raise ValueError(f"_target_={target!r}: there is no {path.relative_to(root)}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    there = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if name not in there:
        raise ValueError(
            f"_target_={target!r}: no class of {path.relative_to(root)}; valid: {', '.join(there)}"
        )
    return Source(tree, name, root)


def cards(root: Path = ROOT) -> str:
    """The whole page."""
    own = Note.of(root / "conf" / "config.yaml").options
    calib = next(o.default for o in own if o.name == "defaults.calib")
    usual = next(o.default for o in Note.of(root / f"conf/calib/{calib}.yaml").options if o.name == "inputs")
    made = []
    for group in GROUPS:
        notes = {p: Note.of(p) for p in sorted((root / "conf" / group).rglob("*.yaml"))}
        ours = {p: note for p, note in notes.items() if _target_of(note).startswith("methods.")}
        made += [_card(path, note, root, usual) for path, note in ours.items()]
    return "\n".join([HEAD, *made])


def _target_of(note: Note) -> str:
    """The class a yaml names."""
    return next(o.default for o in note.options if o.name.rpartition(".")[2] == "_target_")


def _stages_of(note: Note, root: Path) -> list[Source]:
    """The classes inside a method's yaml: the stages of a pipeline."""
    inner = [o for o in note.options if o.name.endswith("._target_") and o.name.count(".") > 1]
    return [source(o.default, root) for o in inner]


def _card(path: Path, note: Note, root: Path, usual: str) -> str:
    """One method, or one repair."""
    values, group = {o.name: o.default for o in note.options}, path.relative_to(root / "conf").parts[0]
    target = _target_of(note)
    usual = usual if group == "method" else "the method's"
    code = source(target, root)
    needs = dict.fromkeys(n for part in (code, *_stages_of(note, root)) for n in part.asked)
    calibrated = bool(needs) or "ModelMethod" in code.contract
    where = f"{target.rpartition('.')[0].replace('.', '/')}.py"
    facts = [
        ("contract", code.contract),
        (
            "needs",
            ", ".join(needs) or ("the calibration stream itself" if calibrated else "no data"),
        ),
        ("calibration inputs", f"{values.get('calib.inputs', usual)}" if calibrated else "-"),
        ("covers", ", ".join(code.names("covers"))),
        ("published" if ARXIV.search(" ".join(note.header)) else "note", _linked(" ".join(note.header))),
        ("files", f"[{where}](../{where}), [{path.relative_to(root)}](../{path.relative_to(root)})"),
    ]
    lines = [f"## {GROUPS[group]}{path.stem}", "", f"{_linked(code.paper)}", "", code.prose, ""]
    lines += ["| | |", "| --- | --- |", *(f"| {k} | {_safe(v)} |" for k, v in facts if v), ""]
    return "\n".join([*lines, *_knob_table(code, note, group)])


def _knob_table(code: Source, note: Note, group: str) -> Iterator[str]:
    """Knobs, defaults, meanings: the docstring's, else the yaml's comment."""
    options = [o for o in note.options if group != "method" or o.name.startswith("method.")]
    written = {o.name: o for o in knobs(options, group) if "." not in o.name} | _inner(options, group)
    found = {n: written.get(n, Option(n, default, "")) for n, default in code.fields.items()}
    if not found:
        return
    yield from ("| knob | default | meaning |", "| --- | --- | --- |")
    for name, option in found.items():
        meaning = code.meanings.get(name) or option.remark
        yield f"| `{group}.{name}` | `{option.default}` | {_safe(meaning)} |"
    yield ""


def _inner(options: Sequence[Option], group: str) -> dict[str, Option]:
    """Knobs that are methods themselves, as one writes them."""
    found: dict[str, list[str]] = {}
    for option in options:
        knob, _, name = option.name.removeprefix(f"{group}.").partition(".")
        if name:
            found.setdefault(knob, []).append(f"{name}: {option.default}")
    return {knob: Option(knob, f"{{{', '.join(parts)}}}", "") for knob, parts in found.items()}


def _linked(text: str) -> str:
    """Turn arXiv ids into links."""
    return ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _safe(text: str) -> str:
    """Text that does not end a table's cell."""
    return text.replace("|", "\\|")


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the page, or with --check say whether the one there is what would be written."""
    options = argparse.ArgumentParser(prog="python -m analysis.cards", description=cards.__doc__)
    options.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is stale")
    check, page = options.parse_args(argv).check, root / PAGE
    try:
        text = cards(root)
    except ValueError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 2
    if not check:
        page.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{page.relative_to(root)}\n")
        return 0
    if page.is_file() and page.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"error: {PAGE} is stale; write it again with: python -m analysis.cards\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
