"""What the yaml files under conf/ say of themselves: header comments, and every key with its remark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

_REMARK = re.compile(r"[\s,}\]]*#\s*(.*)")


@dataclass(frozen=True)
class Option:
    """One key of a yaml file."""

    name: str  # dotted, "cache.max_gb"
    default: str  # as it is written
    remark: str  # the comment behind it, "" where there is none


@dataclass(frozen=True)
class Note:
    """One yaml file, read as text: nothing is imported and no interpolation is resolved."""

    text: str

    @classmethod
    def of(cls, path: Path) -> Note:
        """The note of a file."""
        return cls(path.read_text(encoding="utf-8"))

    @cached_property
    def header(self) -> list[str]:
        """Comment lines above the first key, Hydra's `@package` directive left out."""
        found = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            found.append(line.lstrip("# ").rstrip())
        return [line for line in found if not line.startswith("@package")]

    @cached_property
    def options(self) -> list[Option]:
        """Every key that holds a value, in the order of the file; keys of mappings are dotted."""
        root = yaml.compose(self.text)
        return list(self._walk(root, "")) if isinstance(root, yaml.MappingNode) else []

    def _walk(self, node: yaml.Node, path: str) -> Iterator[Option]:
        """The leaves under a node."""
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield from self._walk(value, f"{path}.{key.value}".lstrip("."))
        elif isinstance(node, yaml.SequenceNode) and not node.flow_style:
            for item in node.value:
                yield from self._walk(item, path)
        else:
            yield Option(path, self._written(node), self._remark(node))

    def _written(self, node: yaml.Node) -> str:
        """The value as the file spells it, without quotes."""
        written = self.text[node.start_mark.index : node.end_mark.index]
        return written.strip().strip("\"'")

    def _remark(self, node: yaml.Node) -> str:
        """The comment on the line where the value ends."""
        rest = self.text[node.end_mark.index :].partition("\n")[0]
        found = _REMARK.fullmatch(rest)
        return found[1].strip() if found else ""


def groups(conf: Path) -> dict[str, dict[str, Path]]:
    """Group -> entry -> file: the folders of conf/ and the yaml files in them."""
    folders = sorted(p for p in conf.iterdir() if p.is_dir())
    found = {
        f.name: {str(p.relative_to(f).with_suffix("")): p for p in sorted(f.rglob("*.yaml"))} for f in folders
    }
    return {name: entries for name, entries in found.items() if entries}


def defaults(config: Note) -> dict[str, Option]:
    """Group -> what config.yaml's defaults list chooses, with its remark."""
    chosen = [o for o in config.options if o.name.startswith("defaults.")]
    return {o.name.split(" ")[-1].removeprefix("defaults."): o for o in chosen}


def knobs(options: Sequence[Option], group: str) -> list[Option]:
    """What may be set of an entry: its keys below the group, `_target_` and the like left out."""
    own = [Option(o.name.removeprefix(f"{group}."), o.default, o.remark) for o in options]
    return [o for o in own if not o.name.rpartition(".")[2].startswith("_")]
