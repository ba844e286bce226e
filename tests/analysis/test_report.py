import base64
import gzip
import json
import re
import shlex

import pytest
import synthetic_study
from hydra.core.override_parser.overrides_parser import OverridesParser
from large_study import HOSTILE, Memory, config, many

from analysis import collect, command, rerun
from analysis.report import __main__ as report
from analysis.report import build, details, methods, page


def told(text, name="data-gz"):
    """What a script element of the page holds, unpacked."""
    found = re.search(rf'id="{name}">([^<]*)</script>', text)[1]
    return gzip.decompress(base64.b64decode(found)).decode()


def test_the_command_writes_one_file_that_holds_all(root, capsys):
    assert command.run(report.main, ["demo", "--store", str(root)]) == 0
    path = root / "demo" / "report.html"
    assert capsys.readouterr().out.split() == [str(path)]
    text = path.read_text()
    data = json.loads(told(text))
    assert data["study"] == "demo"
    assert "plotly.js" in told(text, "plotly-gz")[:200]
    table, states = data["settings"], ["dense", "unreachable", "skipped", ""]
    assert len(table["label"]) == 10 == len(set(zip(table["label"], table["budget"], strict=True)))
    assert set(table["state"]) == set(states)
    lost = table["state"].index("skipped")
    assert table["reason"][lost] == "skipped: slicegpt covers compensate"
    assert {task["task"] for task in data["tasks"]} == {"nano_factoid", "nano_icra_open", "nano_ppl"}
    assert [card["name"] for card in data["methods"]] == sorted({"svd", "slicegpt", "gptq"})


def test_scores_are_those_of_the_rows(rows):
    data = build.payload(collect.frame(rows), "demo")
    places = {(r["method"], r["budget"], r["task"]): r for r in rows if "task" in r}
    scores, table = data["scores"], data["settings"]
    assert len(scores["v"]) == len(places)
    for k, (s, t) in enumerate(zip(scores["s"], scores["t"], strict=True)):
        row = places[table["method"][s], table["budget"][s], data["tasks"][t]["task"]]
        assert scores["v"][k] == pytest.approx(row["value"], rel=1e-4)
        assert scores["state"][k] == row["state"]
    svd = [i for i, name in enumerate(table["method"]) if name == "svd"]
    matches = [r for r in rows if r["method"] == "svd" and r.get("state") == "match"]
    assert sum(table["match"][i] for i in svd) == len(matches)
    assert {table["judged"][i] for i in svd} == {3}


def test_the_same_rows_give_the_same_bytes(rows):
    first, second = (page.html(build.payload(collect.frame(rows), "demo")) for _ in range(2))
    assert first == second


def test_nothing_is_fetched(rows):
    text = page.html(build.payload(collect.frame(rows), "demo"))
    assert "default-src 'none'" in text
    assert not re.search(r"<(?:link|iframe|img|object|embed|base)\b", text)
    assert not re.search(r"\b(?:src|href|action)\s*=\s*[\"']?(?:https?:)?//", text)
    outside = set(re.findall(r"https?://[^\"'`\s$]+", text))
    assert outside == {"http://www.w3.org/2000/svg", "https://arxiv.org/abs/"}
    for forbidden in ("fetch(", "XMLHttpRequest", "WebSocket", "import(", "innerHTML", "insertAdjacentHTML"):
        assert forbidden not in text


@pytest.mark.slow
@pytest.mark.parametrize("field", ["model", "knobs", "reason", "setting", "git"])
def test_hostile_text_stays_text(rows, field):
    for row in rows:
        row[field] = HOSTILE
    text = page.html(build.payload(collect.frame(rows), HOSTILE))
    assert "onerror" not in text.replace("&lt;img src=x onerror=alert(1)&gt;", "")
    assert text.count("</script>") == 3
    assert HOSTILE in json.dumps(json.loads(told(text)), ensure_ascii=False).replace('\\"', '"')


@pytest.mark.slow
def test_500_cells_are_small_enough():
    rows = many(500)
    data = build.payload(collect.frame(rows), "demo", Memory(rows))
    text = page.html(data)
    assert len(data["settings"]["label"]) == 500
    assert len(data["plans"]["plans"]) > 10
    assert all(
        flips["lost"]
        for s, flips in zip(data["settings"]["state"], data["flips"]["cells"], strict=True)
        if s == ""
    )
    assert len(text.encode()) < 5_000_000


def test_flips_are_what_dense_had_right():
    rows = synthetic_study.rows(methods=("svd", "wanda"), budgets=(0.1,), tasks=("nano_factoid", "nano_ppl"))
    data = build.payload(collect.frame(rows), "demo", Memory(rows, items=10), flips=3)
    flips = data["flips"]
    own = data["settings"]["method"].index("svd")
    assert flips["cells"][own]["lost"] == 4
    assert len(flips["cells"][own]["worst"]) == 3
    at, fall, said, by = flips["cells"][own]["worst"][0]
    t, name, question, target, dense = flips["items"][at]
    assert data["tasks"][t]["task"] == "nano_factoid"
    assert (name, fall, by) == ("6", 1.0, 2)
    assert flips["texts"][dense] == "right nano_factoid 6"
    assert flips["texts"][said].endswith("nano_factoid 6")
    assert (flips["texts"][question], flips["texts"][target]) == ("", "right 6")
    assert flips["cells"][data["settings"]["state"].index("dense")]["lost"] == 0


def test_plans_are_grids_of_roles_by_blocks():
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.5,), tasks=("nano_mcr",))
    plans = build.payload(collect.frame(rows), "demo", Memory(rows))["plans"]
    made = plans["plans"][plans["of"][1]]
    assert made["roles"] == ["q", "k", "o", "up", "down"]
    assert made["blocks"] == list(range(24))
    assert made["kept"][0][0] == 450


def test_bytes_are_told_by_role_and_by_what_they_hold():
    name = "model.layers.{}.{}"
    gptq = {
        name.format(block, role): {"codes": 40, "scale": 4, "zero": 1}
        for block in (0, 1)
        for role in ("mlp.up_proj", "self_attn.q_proj")
    }
    repaired = {name.format(0, "mlp.up_proj"): {"mask": 8, "values": 32, "core0": 5, "core1": 6, "odd": 1}}
    cells = [{"spent": gptq}, {}, {"spent": repaired | {"": {"added": 9}}}, {"spent": dict(gptq)}]
    told = details.spent(cells)
    assert told["of"] == [0, -1, 1, 0]
    kinds = ["weights", "codes", "scales and zeros", "masks and indices", "factors", "added", "odd"]
    assert told["kinds"] == kinds
    assert told["found"][0] == {"roles": ["q", "up"], "bytes": [[0, 80, 10, 0, 0, 0, 0]] * 2}
    assert told["found"][1]["roles"] == ["up", "added by the method"]
    assert told["found"][1]["bytes"] == [[32, 0, 0, 8, 11, 0, 1], [0, 0, 0, 0, 0, 9, 0]]


def test_the_command_of_a_cell_says_what_differs_from_the_defaults():
    cell = {
        "study": "demo",
        "model": "nano",
        "budget": 0.5,
        "accounting": "bytes",
        "scope": "blocks",
        "calib_seed": 2,
    }
    method = {"_target_": "methods.wanda.Wanda", "run": 4}
    calib = {"path": "tasks/nano/data/calib.txt", "n": 64, "length": 256, "inputs": "compressed"}
    line = rerun.command(
        cell | {"config": config() | {"method": method, "calib": calib}},
        dict.fromkeys(["nano_mcr", "ppl_nano"]),
    )
    words = shlex.split(line)
    assert words[:4] == ["python", "run.py", "study=demo_again", "model=nano"]
    assert {"budget=0.5", "seed=2", "method=wanda", "method.run=4", "calib.n=64"} <= set(words)
    assert {"calib.inputs=compressed", "task=[nano_mcr,ppl_nano]"} <= set(words)
    assert not [word for word in words if word.startswith(("calib.length", "calib.path", "device"))]


@pytest.mark.parametrize("name", ["my study", "lr=1", 'a"b', "back\\", 'a\\"b', "c:\\new", "[1", "ünï ,x"])
def test_whatever_a_name_holds_hydra_reads_it_back(name):
    cell = {"study": name, "model": name, "method": name, "budget": 0.5}
    spec = {"_target_": "methods.wanda.Wanda", "run": [name, 4]}
    line = rerun.command(cell | {"config": config() | {"method": spec}}, {"nano_mcr": None})
    read = OverridesParser.create().parse_overrides(shlex.split(line)[2:])
    found = {one.key_or_group: one.value() for one in read}
    found = {key: getattr(value, "text", value) for key, value in found.items()}
    run = [getattr(value, "text", value) for value in found["method.run"]]
    assert (found["study"], found["model.path"]) == (f"{name}_again", f"PATH_OF_{name}")
    assert (found["label"], run, found["method"]) == (name, [name, 4], "wanda")


def test_old_rows_have_no_command(rows):
    assert set(build.payload(collect.frame(rows), "demo")["provenance"]["command"]) == {""}


def test_a_task_inside_a_group_is_asked_for_by_its_group():
    cell = {"study": "demo", "model": "nano", "budget": 0.5, "config": config()}
    assert rerun.command(cell, dict.fromkeys(["nano_mcr_k1", "nano_mcr_k2"])).endswith(
        " 'task=[nano_mcr_shots]'"
    )
    assert rerun.command(cell, {"piqa": None}).endswith(" 'task=[piqa]'")


def test_the_command_says_how_many_items_were_asked_for():
    cell = {"study": "demo", "model": "nano", "budget": 0.5, "config": config()}
    assert rerun.command(cell, {"piqa": 40.0, "arc_easy": 40.0}).endswith(" 'task=[piqa,arc_easy]' limit=40")
    line = rerun.command(cell, {"piqa": 40.0, "arc_easy": None, "boolq": 8.0})
    assert line.endswith(" task.piqa.limit=40 task.boolq.limit=8")


def test_cards_say_paper_rule_and_knobs():
    wanda, unknown = methods.found(["wanda", "../../etc/passwd"])
    assert "arXiv:2306.11695" in wanda["paper"]
    assert "|W| * ||x||" in wanda["rule"]
    assert ["run", "0"] in [knob[:2] for knob in wanda["knobs"]]
    assert unknown == {"name": "../../etc/passwd"}


def test_columns_that_old_rows_lack_are_blank(rows):
    for row in rows:
        for name in (
            "file_bytes",
            "dense_file_bytes",
            "bits_model",
            "compress_seconds",
            "chance",
            "stderr",
            "low",
        ):
            row.pop(name, None)
    data = build.payload(collect.frame(rows), "demo")
    assert set(data["settings"]["file"]) == {None}
    page.html(data)


def test_numbers_that_are_none_are_told(rows):
    for row in rows:
        if row["method"] == "svd" and row.get("task") == "nano_ppl":
            row["value"], row["stderr"] = float("inf"), float("nan")
    assert "inf" in build.payload(collect.frame(rows), "demo")["scores"]["v"]


def test_a_study_of_failures_is_shown(rows):
    rows = [row for row in rows if row.get("state") in ("unreachable", "skipped")]
    data = build.payload(collect.frame(rows), "demo")
    assert data["scores"]["v"] == data["tasks"] == []
    page.html(data)


def test_a_study_that_is_not_there_or_empty_is_one_line(root, capsys):
    (root / "half" / "abc").mkdir(parents=True)
    (root / "half" / "abc" / "cell.json").write_text("{}")
    for study, part in (("nothing", "no rows in"), ("half", "no task of it is finished yet; see")):
        assert command.run(report.main, [study, "--store", str(root)]) == 2
        err = capsys.readouterr().err
        assert part in err
        assert err.count("\n") == 1


def test_a_half_written_task_is_left_out_or_named(root, capsys):
    cell = next(p for p in (root / "demo").iterdir() if len(list(p.glob("task-*"))) == 3)
    (cell / ".tmp-1").write_text("{")
    assert command.run(report.main, ["demo", "--store", str(root)]) == 0
    capsys.readouterr()
    (cell / "task-nano_ppl.json").write_text("{")
    assert command.run(report.main, ["demo", "--store", str(root)]) == 2
    err = capsys.readouterr().err
    assert "task-nano_ppl.json is damaged" in err
    assert err.count("\n") == 1


def test_without_plotly_the_remedy_is_told(root, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command.run(report.main, ["demo", "--store", str(root)]) == 2
    assert "crunchmark-bench[report]" in capsys.readouterr().err


def test_flips_that_are_no_count_are_refused(root, capsys):
    assert command.run(report.main, ["demo", "--store", str(root), "--flips", "-1"]) == 2
    assert capsys.readouterr().err == "error: --flips=-1: valid: 0 or more\n"


@pytest.mark.parametrize(
    "name", [p.name for p in sorted(page.HERE.iterdir()) if p.suffix in (".js", ".css", ".html")]
)
def test_scripts_are_short_and_all_are_used(name):
    lines = (page.HERE / name).read_text().splitlines()
    assert len(lines) <= 250
    assert max(map(len, lines)) <= 110
    stem, _, ending = name.partition(".")
    assert stem in {"js": page.SCRIPTS, "css": page.STYLES, "html": ("page",)}[ending]
