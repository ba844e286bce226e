import itertools
import re
import subprocess
import tomllib
import types
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from crunchmark import Layer, Room, dense_bytes
from launch import in_sweep

ROOT = Path(__file__).resolve().parents[2]
TRACKED = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.split()
PAGES = [ROOT / name for name in TRACKED if (ROOT / name).is_file()]
ADRS = sorted((ROOT / "docs" / "adr").glob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"\bpython (-m )?([\w./]+)")
OUTSIDE = {"pytest", "pip", "venv"}  # modules that are not ours


def each(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda p: str(p.relative_to(ROOT)))


def dead_links(page, text):
    targets = [t for t in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.S)) if "://" not in t]
    return [t for t in targets if not (page.parent / t.partition("#")[0]).exists()]


def unknown_commands(text):
    found = []
    for module, name in COMMAND.findall(text):
        place = ROOT / (name.replace(".", "/") if module else name)
        there = (
            place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
            if module
            else place.is_file()
        )
        if name not in OUTSIDE and not there:
            found.append(name)
    return found


def test_there_are_pages():
    assert len(PAGES) >= 20
    assert len(ADRS) >= 9


@each(PAGES)
def test_no_dead_links(page):
    assert dead_links(page, page.read_text()) == []


@each(PAGES)
def test_commands_name_what_is_there(page):
    assert unknown_commands(page.read_text()) == []


def test_the_checks_find_what_they_should():
    page = ROOT / "docs" / "index.md"
    assert dead_links(page, "[a](nowhere.md) [b](store.md#x) [c](https://example.org)") == ["nowhere.md"]
    assert unknown_commands(
        "python run.py; python -m analysis.tables X; python -m no.such; python gone.py"
    ) == [
        "no.such",
        "gone.py",
    ]


@each([p for p in PAGES if p.parent.name == "docs" and p.name not in ("index.md",)])
def test_the_index_names_every_page(page):
    assert f"]({page.name})" in (page.parent / "index.md").read_text()


@each(ADRS)
def test_decisions_are_short_and_listed(page):
    text = page.read_text()
    assert len(text.splitlines()) <= 40
    assert re.match(rf"# {int(page.stem[:4])}\. ", text)
    assert [h in text for h in ("**Context.**", "**Decision.**", "**Consequences.**")] == [True] * 3
    assert f"(adr/{page.name})" in (ROOT / "docs" / "index.md").read_text()


def test_overrides_in_docs_name_options_that_exist():
    """`group=entry` in a run.py command is a file of conf/, or one the page has you write."""
    groups = {p.name: {y.stem for y in p.glob("*.yaml")} for p in (ROOT / "conf").iterdir() if p.is_dir()}
    seen = 0
    for page in PAGES:
        text = page.read_text()
        for line in re.findall(r"python run\.py .*", text):
            for group, value in re.findall(r"\b(method|model|calib|track)=([\w,]+)", line):
                seen += 1
                made = {name for name in value.split(",") if f"conf/{group}/{name}.yaml" in text}
                assert set(value.split(",")) <= groups[group] | made, (page.name, line)
    assert seen >= 10


@pytest.mark.slow
def test_commands_with_options_of_a_group_compose():
    """As Hydra does it: what is not swept first, then every cell."""
    command = re.compile(r"^    python run\.py ([^#&\\\n]*)", re.M)
    option = re.compile(r"\b(method|allocate|compensate|calib|task)\.[\w.]+=")
    told = sorted({line for page in PAGES for line in command.findall(page.read_text())})
    asked = [line.split() for line in told if option.search(line)]
    parser, cells = OverridesParser.create(), 0
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        for words in asked:
            options = parser.parse_overrides([w for w in in_sweep(words) if not w.startswith("-")])
            swept = [o for o in options if "-m" in words and o.is_sweep_override()]
            plain = [o.input_line for o in options if o not in swept]
            compose("config", plain)
            choices = ([f"{o.key_or_group}={v}" for v in o.sweep_string_iterator()] for o in swept)
            for cell in itertools.product(*choices):
                compose("config", [*plain, *cell])
                cells += 1
    assert len(asked) >= 9
    assert cells >= 15


def test_the_example_of_the_tutorial_runs():
    text = (ROOT / "docs" / "tutorial.md").read_text()
    module = types.ModuleType("example")
    exec(re.search(r"```python\n(.*?)```", text, flags=re.S)[1], vars(module))
    spec = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, flags=re.S)[1])["method"]
    name = spec.pop("_target_").rpartition(".")[2]
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    room = Room(dense_bytes((16, 32)) // 2)
    term = getattr(module, name)(**spec).compress(Layer("layer", weight), room)
    kept = (term.dense() != 0).sum(1)
    assert term.nbytes() <= room.nbytes
    assert kept.tolist() == [14] * 16  # half of 64 bytes, less 4 of bitmap, in 2 bytes each


def test_citation_and_package_say_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert {"message", "title", "authors"} <= set(citation)
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_hooks_let_every_file_in_that_is_there():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = {hook["id"]: hook.get("args", []) for repo in config["repos"] for hook in repo["hooks"]}
    limit = int(hooks["check-added-large-files"][0].partition("=")[2]) * 1024
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sizes = {f: (ROOT / f).stat().st_size for f in files.splitlines() if (ROOT / f).is_file()}
    assert max(sizes.values()) < limit
    locked = re.search(r"^ruff==(\S+)", (ROOT / "requirements.lock").read_text(), flags=re.M)[1]
    assert [r["rev"] for r in config["repos"] if "ruff" in r["repo"]] == [f"v{locked}"]
