import subprocess
import sys

import pytest
import synthetic_study

from analysis import collect, unscored


def test_a_stored_study_has_every_column_in_reading_order(root):
    data = collect.load("demo", root)
    assert set(collect.COLUMNS) <= set(data.columns)
    assert data["label"].iloc[0] == "dense"
    assert list(dict.fromkeys(data["label"])) == ["dense", "gptq", "slicegpt", "svd"]
    assert list(dict.fromkeys(data["task"]))[:3] == ["nano_factoid", "nano_icra_open", "nano_ppl"]
    assert data["eval_seconds"].dropna().eq(1.5).all()


def test_the_nearest_budget_of_a_footnote_is_within_reach(root):
    gone = collect.gone(collect.load("demo", root)).iloc[0].copy()
    gone["nearest_budget"], gone["reason"] = 0.9396, ""  # rounded it would be 0.94
    assert unscored.why(gone) == f"{gone['state']}: nearest reachable budget 0.9396"


@pytest.mark.parametrize("near", [None, 0.8671])
@pytest.mark.parametrize("tail", ["", "; the nearest reachable budget is 0.8671"])
def test_the_nearest_budget_is_told_once_whichever_way_a_row_has_it(root, near, tail):
    gone = collect.gone(collect.load("demo", root)).iloc[0].copy()
    gone["nearest_budget"], gone["reason"] = near, f"budget: the smallest packing is 9 bytes{tail}"
    told = unscored.why(gone)
    assert told.count("the smallest packing is 9 bytes") == 1
    assert told.count("0.8671") == told.count("nearest reachable budget") == bool(near or tail)


def test_a_missing_study_names_the_known_ones(root):
    with pytest.raises(collect.AnalysisError, match=r"study='dmeo'.*known: demo; did you mean 'demo'\?"):
        collect.load("dmeo", root)


@pytest.mark.parametrize("name", ["", "..", "../results/demo", "/"])
def test_a_study_is_a_name_not_a_path(root, name):
    with pytest.raises(collect.AnalysisError, match="known: demo"):
        collect.load(name, root)


def test_a_missing_store_is_named(tmp_path):
    with pytest.raises(collect.AnalysisError, match=r"store=.*no such folder"):
        collect.load("demo", tmp_path / "nowhere")


def test_calibration_seeds_become_mean_spread_and_number():
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.3,), tasks=("nano_factoid",), seeds=(0, 1, 2))
    values = [row["value"] for row in rows if row["method"] == "svd"]
    point = collect.points(collect.frame(rows)).query("label == 'svd'").iloc[0]
    assert point["seeds"] == 3
    assert point["value"] == pytest.approx(sum(values) / 3)
    assert min(values) < point["value"] < max(values)
    assert 0 < point["spread"] < 0.1


def test_seeds_that_disagree_are_undecided():
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.3,), tasks=("nano_factoid",), seeds=(0, 1))
    rows[-1]["state"], rows[-2]["state"] = "match", "fail"
    assert collect.points(collect.frame(rows)).query("label == 'svd'")["state"].item() == "undecided"


def twins(rows, **second):
    """One cell stored twice: the second copy has another key and those fields."""
    return rows + [{**row, "cell": "twin", **second} for row in rows if row["method"] == "svd"]


def test_cells_that_differ_in_their_config_get_their_own_line():
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.3,), tasks=("nano_factoid",))
    for row in rows:
        row["config"] = {"calib": {"n": 128, "source": "builtin"}}
    data = collect.frame(twins(rows, config={"calib": {"n": 16, "source": "builtin"}}))
    assert set(data["label"]) == {"dense", "svd n=128", "svd n=16"}
    assert data["older"].max() == 0


def test_stages_beside_the_method_are_named():
    """Also where no cell is without them; their knobs where they differ."""
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.3,), tasks=("nano_factoid",))
    eora = {"_target_": "methods.compensate.eora.EoRA", "share": 0.1}
    plain, one, two = {"calib": {"n": 8}}, {"compensate": eora}, {"compensate": {**eora, "share": 0.2}}
    for row in rows:
        row["config"] = plain
    assert set(collect.frame(twins(rows, config=one))["label"]) == {"dense", "svd", "svd compensate=eora"}
    other = [{**row, "cell": "third"} for row in twins(rows, config=two) if row["cell"] == "twin"]
    found = set(collect.frame(twins(rows, config=one) + other)["label"])
    assert found == {"dense", "svd", "svd compensate=eora share=0.1", "svd compensate=eora share=0.2"}


def test_a_cell_that_looks_at_no_data_is_not_labelled_by_what_others_saw():
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.3,), tasks=("nano_factoid",))
    for row in rows:
        row["config"] = {"method": {"sweep": 0}}
    seen = {"method": {"sweep": 1}, "calib": {"n": 8, "field": "text"}}
    assert set(collect.frame(twins(rows, config=seen))["label"]) == {"dense", "svd sweep=0", "svd sweep=1"}
    more = {"method": {"sweep": 1}, "calib": {"n": 16, "field": "text"}}
    other = [{**row, "cell": "third"} for row in twins(rows, config=more) if row["cell"] == "twin"]
    found = set(collect.frame(twins(rows, config=seen) + other)["label"])
    assert found == {"dense", "svd sweep=0", "svd sweep=1 n=8", "svd sweep=1 n=16"}


def test_of_two_cells_with_the_same_settings_the_newest_is_shown():
    rows = synthetic_study.rows(methods=("svd",), budgets=(0.3,), tasks=("nano_factoid",))
    for row in rows:
        row["written"] = 2.0
    data = collect.frame(twins(rows, written=1.0, value=0.123))
    assert 0.123 not in set(data["value"])
    assert data["older"].max() == 1


def test_both_accountings_in_one_study_are_told_apart(rows):
    nominal = [{**r, "cell": r["cell"] + "n", "accounting": "nominal"} for r in rows if r["method"] == "svd"]
    assert {"svd", "svd nominal", "dense"} <= set(collect.frame(rows + nominal)["label"])


def test_an_empty_study_is_a_frame_without_rows():
    assert collect.frame([]).empty


@pytest.mark.slow
def test_analysis_needs_neither_torch_nor_hydra():
    code = (
        "import sys, analysis.collect, analysis.tables, analysis.pareto, analysis.finish, crunchmark.store;"
        "import analysis.compare.__main__, analysis.choose;"
        "heavy = ('torch', 'hydra', 'transformers', 'wandb', 'matplotlib.pyplot');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_size_of_the_dense_file_is_that_of_the_dense_cell(rows):
    for row in rows:
        row["dense_file_bytes"] = None
    assert set(collect.frame(rows)["dense_file_bytes"]) == {synthetic_study.DENSE_FILE}
