import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from analysis import cards

ROOT = Path(__file__).resolve().parents[2]
YAMLS = sorted((ROOT / "conf" / "method").rglob("*.yaml"))


def card(text, name):
    return text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


@pytest.fixture
def copy(tmp_path):
    for folder in ("methods", "conf", "docs", "crunchmark"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_the_page_is_fresh():
    assert cards.main(["--check"]) == 0


def test_one_card_for_each_yaml():
    names = re.findall(r"^## (\S+)$", (ROOT / cards.PAGE).read_text(), flags=re.M)
    repairs = [p.stem for p in sorted((ROOT / "conf" / "compensate").glob("*.yaml")) if p.stem != "none"]
    assert names == [path.stem for path in YAMLS] + [f"compensate={name}" for name in repairs]
    assert len(names) >= 17


@pytest.mark.slow
@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_a_card_says_what_the_class_says(path):
    spec = yaml.safe_load(path.read_text())
    knobs = spec["method"]
    module, _, name = knobs.pop("_target_").rpartition(".")
    kind = getattr(import_module(module), name)
    text = card(cards.cards(), path.stem)
    assert f"`{kind.__mro__[1].__name__}`" in text
    needs = getattr(kind, "needs", ())
    if not isinstance(needs, property):  # which a knob decides
        assert all(f"`{stat.__name__}`" in text for stat in needs)
    for knob in kind.__dataclass_fields__:
        line = next(line for line in text.splitlines() if line.startswith(f"| `method.{knob}` |"))
        assert not line.endswith("|  |"), f"{path.stem}: nothing says what {knob} is"
    shown = {k: re.search(rf"\| `method.{k}` \| `(.*?)` \|", text)[1] for k in knobs}
    assert {k: yaml.safe_load(v) for k, v in shown.items()} == knobs
    assert spec.get("calib", {}).get("inputs", "") in text


def test_a_card_says_which_knob_asks_for_a_statistic():
    text = card(cards.cards(), "lq_lora")
    assert "| needs | `Fisher` where `method.fisher` |" in text
    assert "| calibration inputs | dense |" in text


def test_a_repair_has_the_knobs_of_the_core_and_its_own():
    text = card(cards.cards(), "compensate=eora")
    assert "| contract | repair (`Branch`) |" in text
    assert "| needs | `Gram` |" in text
    for knob, default in (("share", "0.1"), ("rank", "null"), ("damp", "0.01")):
        line = next(line for line in text.splitlines() if line.startswith(f"| `compensate.{knob}` |"))
        assert f"| `{default}` |" in line
        assert not line.endswith("|  |")


def test_stale_after_a_change_and_fresh_after_writing(copy, capsys):
    assert cards.main(["--check"], copy) == 0
    path = copy / "conf" / "method" / "wanda.yaml"
    path.write_text(path.read_text().replace("run: 0", "run: 4"))
    assert cards.main(["--check"], copy) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert cards.main([], copy) == 0
    assert cards.main(["--check"], copy) == 0
    assert "| `method.run` | `4` |" in card((copy / cards.PAGE).read_text(), "wanda")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("wanda.Wandaa", "no class of methods/wanda.py; valid: Wanda"), ("wandaa.Wanda", "there is no")],
)
def test_a_target_that_is_not_there_is_one_line(copy, capsys, wrong, said):
    path = copy / "conf" / "method" / "wanda.yaml"
    path.write_text(path.read_text().replace("wanda.Wanda", wrong))
    assert cards.main([], copy) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"_target_='methods.{wrong}': {said}" in line


def test_a_missing_page_is_stale(copy):
    (copy / cards.PAGE).unlink()
    assert cards.main(["--check"], copy) == 1


def test_needs_no_torch():
    code = "import sys, analysis.cards as c; assert c.cards(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
