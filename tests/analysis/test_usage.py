import io
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from rich.console import Console

from analysis import usage
from analysis.notes import Note

ROOT = Path(__file__).resolve().parents[2]


def page(conf=usage.CONF, width=80):
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(usage.text(conf))
    return out.getvalue()


def keys(node, path=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from keys(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def section(text, group):
    return text.partition(f"\n{group}=")[2].partition("\n\n")[0]


def test_every_yaml_of_every_group_is_a_line_of_its_group():
    text, found = page(), 0
    for path in sorted((ROOT / "conf").glob("*/*.yaml")):
        lines = [line.split()[:1] for line in section(text, path.parent.name).splitlines()]
        assert [path.stem] in lines, path
        found += 1
    assert found >= 30


def test_every_key_of_the_config_is_there_with_its_default_and_remark():
    config = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    flat = " ".join(page().split())
    own = [k for k in keys(config) if not k.startswith(("hydra.", "defaults"))]
    assert len(own) >= 12
    assert all(f" {key}=" in flat for key in [*own, "hydra"])
    assert "budget=0.3 share of the dense weights to remove" in flat


def test_options_of_the_chosen_entries_and_knobs_of_methods():
    text = page()
    flat, methods = " ".join(text.split()), section(text, "method")
    for group in ("model", "calib"):
        for key in yaml.safe_load((ROOT / "conf" / group / "nano.yaml").read_text()):
            assert f" {group}.{key}=" in flat
    for path in (ROOT / "conf" / "method").glob("*.yaml"):
        for knob in keys(yaml.safe_load(path.read_text())["method"]):
            assert knob.endswith("_target_") or f"{knob}=" in methods


@pytest.mark.parametrize("width", [60, 80, 100])
def test_fits_the_terminal_and_cuts_nothing(width):
    text = page(width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_what_it_says_comes_from_the_files(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "extra").mkdir()
    (tmp_path / "config.yaml").write_text("defaults:\n  - method: new   # how\nspeed: 3   # warp\n"
                                          "store: S\nstudy: T\ncache: {dir: C}\n")  # fmt: skip
    (tmp_path / "method" / "new.yaml").write_text("# @package _global_\n# A new thing.\nmethod: {knob: 7}\n")
    (tmp_path / "extra" / "some.yaml").write_text("# Beside.\nx: 1\n")
    flat = " ".join(page(tmp_path).split())
    for part in (
        "speed=3 warp",
        "method= default new; how",
        "new A new thing. knob=7",
        "some Beside.",
        "S/T/",
    ):
        assert part in flat


@pytest.mark.parametrize("args", [args for args, _ in usage.EXAMPLES])
def test_examples_compose(args):
    overrides = [word if "[" in word else word.split(",")[0] for word in args.split() if word != "-m"]
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = compose("config", overrides=overrides)
    assert cfg.method._target_.startswith("methods.")


def test_prints_without_torch_pandas_or_hydra():
    code = (
        "import sys, analysis.usage as u; u.main(); "
        "assert not {'torch', 'pandas', 'hydra', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("python run.py")


def test_note_reads_remarks_defaults_and_headers():
    note = Note(
        "# @package _global_\n# First.\n# Second.\na: 'x # y'   # why\nb: {c: [1, 2], d: null}  # z\n# no\n"
    )
    assert note.header == ["First.", "Second."]
    found = [(o.name, o.default, o.remark) for o in note.options]
    assert found == [("a", "x # y", "why"), ("b.c", "[1, 2]", ""), ("b.d", "null", "z")]
