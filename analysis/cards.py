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
from functools import cached_property
from pathlib import Path

from analysis.notes import Note, Option, knobs

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs") / "methods.md"
CONTRACTS = {"Method": "layer", "Projected": "layer", "Keep": "layer", "ModelMethod": "whole model"}
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
HEAD = """# Methods

Written by `python -m analysis.cards` from the docstrings in `methods/` and the notes in `conf/method/`; a
test fails when it is stale. How to add one: [CONTRIBUTING.md](../CONTRIBUTING.md). What the contracts are:
[ADR 1](adr/0001-two-method-contracts.md). *Published* is what a paper or a repository reports on its own
model and data, not a number of ours; how it counts: [budgets](budgets.md).
"""


@dataclass(frozen=True)
class Source:
    """A method's class as text: nothing is imported, so no torch either."""

    module: ast.Module
    name: str

    @cached_property
    def node(self) -> ast.ClassDef:
        """The class."""
        return next(n for n in self.module.body if isinstance(n, ast.ClassDef) and n.name == self.name)

    @property
    def paper(self) -> str:
        """The module's first line."""
        return (ast.get_docstring(self.module) or "").splitlines()[0]

    @property
    def contract(self) -> str:
        """`layer (Method)` or `whole model (ModelMethod)`."""
        base = next(b.id for b in self.node.bases if isinstance(b, ast.Name) and b.id in CONTRACTS)
        return f"{CONTRACTS[base]} (`{base}`)"

    def names(self, attribute: str) -> list[str]:
        """What a class attribute such as `needs` lists."""
        found = [n.value for n in self.node.body if isinstance(n, ast.Assign) and _target(n) == attribute]
        return [ast.unparse(item) for value in found for item in getattr(value, "elts", [])]

    @property
    def fields(self) -> dict[str, str]:
        """Knob -> default of the dataclass."""
        made = [n for n in self.node.body if isinstance(n, ast.AnnAssign) and n.value is not None]
        return {n.target.id: ast.unparse(n.value) for n in made if isinstance(n.target, ast.Name)}

    @property
    def prose(self) -> str:
        """The class docstring up to where it explains knobs, as one paragraph."""
        return " ".join(self._docstring()[0].split())

    @property
    def meanings(self) -> dict[str, str]:
        """Knob -> what the class docstring says of it."""
        parts = self._docstring()[1:]
        return {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}

    def _docstring(self) -> list[str]:
        """Prose, then knob, meaning, knob, meaning ..."""
        text = ast.get_docstring(self.node) or ""
        if not self.fields:
            return [text]
        return re.split(rf"(?:^|\s)({'|'.join(self.fields)}): ", text)


def _target(node: ast.Assign) -> str:
    return node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""


def source(target: str, root: Path) -> Source:
    """The class that a `_target_` such as methods.gptq.GPTQ names."""
    module, _, name = target.rpartition(".")
    path = root / (module.replace(".", "/") + ".py")
    return Source(ast.parse(path.read_text(encoding="utf-8")), name)


def cards(root: Path = ROOT) -> str:
    """The whole page."""
    own = Note.of(root / "conf" / "config.yaml").options
    calib = next(o.default for o in own if o.name == "defaults.calib")
    usual = next(o.default for o in Note.of(root / f"conf/calib/{calib}.yaml").options if o.name == "inputs")
    notes = {p: Note.of(p) for p in sorted((root / "conf" / "method").rglob("*.yaml"))}
    return "\n".join([HEAD, *(_card(path, note, root, usual) for path, note in notes.items())])


def _card(path: Path, note: Note, root: Path, usual: str) -> str:
    """One method."""
    values = {o.name: o.default for o in note.options}
    target = values["method._target_"]
    code = source(target, root)
    where = f"{target.rpartition('.')[0].replace('.', '/')}.py"
    facts = [
        ("contract", code.contract),
        ("needs", ", ".join(f"`{n}`" for n in code.names("needs")) or _unasked(code)),
        ("calibration inputs", f"{values.get('calib.inputs', usual)}" if _calibrated(code) else "-"),
        ("covers", ", ".join(code.names("covers"))),
        ("published" if ARXIV.search(" ".join(note.header)) else "note", _linked(" ".join(note.header))),
        ("files", f"[{where}](../{where}), [{path.relative_to(root)}](../{path.relative_to(root)})"),
    ]
    lines = [f"## {path.stem}", "", f"{_linked(code.paper)}", "", code.prose, ""]
    lines += ["| | |", "| --- | --- |", *(f"| {k} | {_safe(v)} |" for k, v in facts if v), ""]
    return "\n".join([*lines, *_knob_table(code, note)])


def _calibrated(code: Source) -> bool:
    """Whether calibration tokens are used at all."""
    return bool(code.names("needs")) or "ModelMethod" in code.contract


def _unasked(code: Source) -> str:
    """What a method without `needs` sees of the data."""
    return "the calibration stream itself" if _calibrated(code) else "no data"


def _knob_table(code: Source, note: Note) -> Iterator[str]:
    """Knobs, defaults, meanings: the docstring's, else the yaml's comment."""
    options = [o for o in note.options if o.name.startswith("method.")]
    written = {o.name: o for o in knobs(options, "method")}
    found = {n: written.get(n, Option(n, default, "")) for n, default in code.fields.items()}
    if not found:
        return
    yield from ("| knob | default | meaning |", "| --- | --- | --- |")
    for name, option in found.items():
        meaning = code.meanings.get(name) or option.remark
        yield f"| `method.{name}` | `{option.default}` | {_safe(meaning)} |"
    yield ""


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
    page, text = root / PAGE, cards(root)
    if not options.parse_args(argv).check:
        page.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{page.relative_to(root)}\n")
        return 0
    if page.is_file() and page.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"error: {PAGE} is stale; write it again with: python -m analysis.cards\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
