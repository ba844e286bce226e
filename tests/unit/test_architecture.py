"""Who may import whom, how long a file may be, and what a method may not do."""

import ast
import re
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("crunchmark", "methods", "tasks", "analysis")
FILES = {p: sorted((ROOT / p).rglob("*.py")) for p in PACKAGES}
OURS = {*PACKAGES, "run", "launch", "live", "tests", "hydra_plugins"}
LAYERS = [  # each may import from its own and from those before
    {
        "terms",
        "stats",
        "linalg",
        "rounding",
        "apart",
        "normal",
        "programme",
        "obs",
        "mpo",
        "clusters",
        "budget",
        "seeds",
        "files",
        "keys",
        "progress",
        "pulse",
        "checks",
        "machine",
        "hub",
        "tensorfile",
        "paired",
        "proportion",
        "resample",
        "energy",
        "efficiency",
        "kernels",
        "execution",
        "told",
    },
    {
        *("interface", "task", "projected", "branch", "weighed", "ladders", "view", "families", "edits"),
        *("groups", "heads", "parts", "gone", "dropped", "stages", "rounded", "hooks"),
    },
    {
        *("walk", "cache", "store", "calib", "sliced", "shrunk", "effects", "fisher", "folds", "lost"),
        *("modular", "modules", "allocation", "tuning", "bare"),
    },
    {"artifact", "models", "evaluate", "track", "shared"},
    {"maker", "plain", "pack_quantized"},
    {"bench", "cell"},
    {"compress"},
    {"scene"},
    {"pipeline"},
    {"export"},
]
STAGES = [p.name for p in (ROOT / "methods").iterdir() if (p / "__init__.py").is_file()]
CORE = {"uniform"}  # defaults that live in the core
STORED = {"store", "Store", "paired", "progress", "pulse"}  # what analysis may use of the core
BUILT_IN = {"isinstance", "getattr", "hasattr", "print", "setattr", "eval", "exec", "open"}


def imports(path):
    """Dotted names a module imports, anywhere in it but under TYPE_CHECKING."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def tops(path):
    return {name.split(".")[0] for name in imports(path)}


def test_how_many_modules_there_are():
    """The other tests look at all of them."""
    assert {p: len(f) for p, f in FILES.items()} == {
        p: sum(1 for _ in (ROOT / p).glob("**/*.py")) for p in PACKAGES
    }
    assert len(FILES["crunchmark"]) >= 35
    yamls = [p for group in ("method", "allocate", "compensate") for p in (ROOT / "conf" / group).glob("*")]
    named = [re.findall(r"^ *_target_: (methods\.\S+)\.\w+$", p.read_text(), flags=re.M) for p in yamls]
    modules = [p.relative_to(ROOT).with_suffix("") for p in FILES["methods"] if p.stem != "__init__"]
    assert {name for names in named for name in names} == {".".join(m.parts) for m in modules}
    assert len(FILES["tasks"]) >= 10
    assert len(FILES["analysis"]) >= 8


def test_the_core_imports_none_of_the_others():
    looked = 0
    for path in FILES["crunchmark"]:
        forbidden = (OURS - {"crunchmark"}) | {"hydra", "omegaconf", "lm_eval", "pandas", "matplotlib"}
        assert not tops(path) & forbidden, path
        looked += 1
    assert looked == len(FILES["crunchmark"])


def test_methods_import_the_core_torch_and_the_standard_library():
    for path in FILES["methods"]:
        assert tops(path) <= {"crunchmark", "torch", *sys.stdlib_module_names}, path
        inside = {n for n in imports(path) if n.startswith("crunchmark.")}
        modules = {p.stem for p in FILES["crunchmark"]}
        assert not {n.split(".")[1] for n in inside} & modules, f"{path}: import from crunchmark itself"


def test_tasks_import_no_method_no_analysis():
    for path in FILES["tasks"]:
        assert not tops(path) & (OURS - {"crunchmark", "tasks"}), path


def test_analysis_imports_only_the_store_and_no_torch():
    for path in FILES["analysis"]:
        assert not tops(path) & {"torch", "transformers", "hydra", "lm_eval", "methods", "tasks", "run"}, path
        inside = {n for n in imports(path) if n.split(".")[0] == "crunchmark"}
        assert all((name.split(".")[1:2] or ["store"])[0] in STORED for name in inside), path


def test_run_reaches_methods_and_tasks_by_name_only():
    assert not tops(ROOT / "run.py") & {"methods", "tasks"}


def test_wandb_is_track_alone():
    using = {p.relative_to(ROOT).as_posix() for p in FILES["crunchmark"] if "wandb" in tops(p)}
    assert using <= {"crunchmark/track.py"}
    assert not any("wandb" in tops(p) for part in ("methods", "tasks") for p in FILES[part])
    assert "wandb" not in tops(ROOT / "run.py")


def part_of(path):
    """The core part a file belongs to: "terms" for terms/base.py."""
    return path.relative_to(ROOT / "crunchmark").parts[0].removesuffix(".py")


def test_the_core_imports_downward():
    level = {name: k for k, names in enumerate(LAYERS) for name in names}
    parts = {part_of(p) for p in FILES["crunchmark"]} - {"__init__"}
    assert parts <= set(level), f"say where {parts - set(level)} belong"
    looked = 0
    for path in FILES["crunchmark"]:
        here = part_of(path)
        if here == "__init__":
            continue
        used = {n.split(".")[1] for n in imports(path) if n.startswith("crunchmark.")}
        assert all(level[name] <= level[here] for name in used & set(level)), (here, used)
        looked += 1
    assert looked == len(FILES["crunchmark"]) - 1


def test_no_two_parts_of_the_core_import_each_other():
    graph = {}
    for path in FILES["crunchmark"]:
        used = {n.split(".")[1] for n in imports(path) if n.startswith("crunchmark.")}
        graph.setdefault(part_of(path), set()).update(used - {part_of(path)})
    names = set(graph) - {"__init__"}
    while names:
        free = {n for n in names if not graph[n] & names}
        assert free, f"these import each other: {sorted(names)}"
        names -= free


def code_lines(path):
    """Lines that hold a token and are neither docstring nor comment."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    quoted = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            quoted.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    idle = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    with path.open("rb") as file:
        tokens = [t for t in tokenize.tokenize(file.readline) if t.type not in idle and t.string]
    lines = {n for t in tokens for n in range(t.start[0], t.end[0] + 1) if t.start[0]}
    return len(lines - quoted)


@pytest.mark.parametrize("path", FILES["crunchmark"], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_core_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_method_files_are_short():
    lengths = sorted(code_lines(p) for p in FILES["methods"] if p.stem != "__init__")
    assert lengths[-1] <= 120
    assert lengths[len(lengths) // 2] <= 45
    assert lengths[0] > 3  # the count counts


@pytest.mark.parametrize("path", FILES["methods"], ids=lambda p: p.stem)
def test_methods_only_compute(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & BUILT_IN
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Try | ast.Global)]


def test_every_exported_name_is_there():
    import crunchmark

    assert len(crunchmark.__all__) == len(set(crunchmark.__all__)) > 50
    assert all(getattr(crunchmark, name) is not None for name in crunchmark.__all__)
    typed = ast.parse((ROOT / "crunchmark/__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in typed.body if isinstance(n, ast.If))
    assert {n.names[0].name for n in block.body} == set(crunchmark.__all__)


def test_every_package_is_installed():
    """A wheel holds what pyproject names; a folder it forgets would be missing from an installation."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {p.parent.relative_to(ROOT) for top in PACKAGES for p in (ROOT / top).rglob("__init__.py")}
    assert {".".join(folder.parts) for folder in found} == set(named) - {"hydra_plugins"}
