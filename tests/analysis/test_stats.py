import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from analysis import collect, crossed, kick_data, kick_tables, plan, stats, tables
from crunchmark.evaluate import rows as rows_of
from crunchmark.paired import compare, yes_no
from crunchmark.proportion import ratio_score
from crunchmark.store import Store
from crunchmark.task import Item, Metric

TABLE_3 = {  # LLM-KICK (arXiv:2310.01382), Table 3, Vicuna-7B at 0, 10 .. 50 %
    ("factoid", "magnitude"): [65.44, 61.74, 66.53, 60.84, 42.06, 13.99],
    ("factoid", "sparsegpt"): [65.44, 63.84, 62.44, 58.54, 55.54, 42.86],
    ("factoid", "wanda"): [65.44, 63.34, 65.23, 61.24, 58.24, 44.66],
    ("mmlu", "magnitude"): [0.471, 0.466, 0.455, 0.422, 0.339, 0.050],
    ("mmlu", "sparsegpt"): [0.471, 0.470, 0.460, 0.437, 0.395, 0.308],
    ("mmlu", "wanda"): [0.471, 0.469, 0.460, 0.455, 0.425, 0.386],
    ("long", "magnitude"): [5.883, 6.112, 5.855, 5.567, 4.329, 1.233],
    ("long", "sparsegpt"): [5.883, 6.033, 5.533, 6.067, 5.567, 5.067],
    ("long", "wanda"): [5.883, 6.0, 5.783, 5.933, 5.267, 5.033],
    ("mt", "magnitude"): [7.763, 7.567, 7.621, 7.201, 6.208, 3.308],
    ("mt", "sparsegpt"): [7.763, 7.645, 7.50, 7.188, 6.905, 6.206],
    ("mt", "wanda"): [7.763, 7.731, 7.546, 7.202, 7.071, 6.838],
}
LIMITS = {  # contiguous and largest, in per cent
    "factoid": [(0, 20), (20, 20), (20, 20)],
    "mmlu": [(20, 20), (20, 20), (30, 30)],
    "long": [(20, 20), (10, 30), (30, 30)],
    "mt": [(20, 20), (20, 20), (20, 20)],
}


def table_3():
    lines = []
    for (task, label), (dense, *values) in TABLE_3.items():
        for budget, value in zip((0.1, 0.2, 0.3, 0.4, 0.5), values, strict=True):
            state = "match" if value >= 0.95 * dense else "fail"
            key = dict(zip(stats.POINT, ("vicuna-7b", label, budget, task, "score"), strict=True))
            lines.append(key | {"value": value, "state": state})
    return pd.DataFrame(lines)


@pytest.mark.parametrize("task", LIMITS)
def test_limits_of_the_papers_own_table(task):
    found = stats.limits(table_3()).query("task == @task").set_index("label")
    for label, (contiguous, largest) in zip(("magnitude", "sparsegpt", "wanda"), LIMITS[task], strict=True):
        line = found.loc[label]
        assert (line["contiguous"], line["largest"]) == (contiguous / 100, largest / 100)
    assert list(found["tested"].iloc[0]) == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_limits_with_an_undecided_cell_are_a_range_and_order_does_not_matter():
    points = table_3().query("task == 'mmlu' and label == 'wanda'").iloc[::-1].reset_index(drop=True)
    points.loc[points["budget"] == 0.2, "state"] = "undecided"
    (line,) = stats.limits(points).to_dict("records")
    assert (line["contiguous"], line["possible"], line["largest"], line["first_fail"]) == (0.1, 0.3, 0.3, 0.4)
    assert line["undecided"] == [0.2]
    points.loc[:, "state"] = "chance"
    assert stats.limits(points).empty
    with pytest.raises(ValueError, match=r"'wanda' has two lines at budget"):
        stats.limits(pd.concat([table_3(), table_3()]).query("label == 'wanda'"))


def test_holm_on_a_worked_example():
    """Of 0.01, 0.04, 0.03, 0.005: times 4, 3, 2, 1 from the smallest, never falling."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = stats.holm([0.01, np.nan, 0.04])
    assert found[[0, 2]] == pytest.approx([0.02, 0.04])
    assert math.isnan(found[1])
    assert math.isnan(stats.holm([np.nan])[0])


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, 2, 7, 200])
def test_holm_is_that_of_statsmodels(m):
    raw = np.random.default_rng(m).random(m).round(2) ** 3  # with ties, and small ones
    assert stats.holm(raw) == pytest.approx(multipletests(raw, method="holm")[1], abs=0)


def test_a_family_is_the_judged_headline_cells_of_a_model():
    data = pd.DataFrame(
        {
            "model": ["a", "a", "a", "a", "b", "a"],
            "state": ["match", "fail", "undecided", "dense", "match", "match"],
            "p_match": [0.02, 0.99, 0.3, np.nan, 0.02, 0.001],
            "p_fail": [0.98, 0.001, 0.7, np.nan, 0.98, 0.999],
            "headline": [True, True, True, True, True, False],
        }
    )
    found = stats.family(data)
    assert found["p_holm"].tolist()[:3] == pytest.approx([0.04, 0.003, 0.3])
    assert found["p_holm"].isna().tolist() == [False, False, False, True, False, True]
    assert found["state_holm"].tolist() == ["undecided", "fail", "undecided", "dense", "match", "match"]
    assert stats.family(data, by=())["p_holm"].iloc[0] == pytest.approx(0.06)  # the third of four


def put(store, scores, dense, metric, names=None):
    """A study: the dense cell and one per seed, of a method `m` at 0.3."""
    names = names or [f"q{i}" for i in range(len(dense))]
    parent = [Item(k, metric.name, s) for k, s in zip(names, dense, strict=True)]
    for seed, row in enumerate([dense, *scores], start=-1):
        cell = f"{seed + 1:024d}"
        items = [Item(k, metric.name, s) for k, s in zip(names, row, strict=True)]
        facts = {"cell": cell, "model": "nano", "method": "dense" if seed < 0 else "m", "accounting": "bytes"}
        facts |= {"budget": 0.0 if seed < 0 else 0.3, "calib_seed": max(seed, 0), "written": seed}
        store.put_cell("s", cell, facts)
        found = rows_of("t", "p", items, {metric.name: metric}, None if seed < 0 else parent)
        stored = [[i.id, i.metric, i.score, i.weight, {}] for i in items]
        store.put_task("s", cell, "t", {"rows": found, "items": stored, "protocol": "p"})
    return collect.load("s", store.root)


def seeds(k, n=120, seed=0):
    rng = np.random.default_rng(seed)
    dense = (rng.random(n) < 0.8).astype(float)
    return [np.where(rng.random(n) < 0.08, 1 - dense, dense) for _ in range(k)], dense


@pytest.mark.parametrize("metric", [Metric("acc"), Metric("ppl", "exp", False), Metric("ms", "p95", False)])
def test_one_seed_is_the_row(tmp_path, metric):
    scores, dense = seeds(1)
    if metric.kind != "mean":
        noise = np.random.default_rng(1).gamma(4, 0.2, 120)
        scores, dense = [noise + 0.01 * scores[0]], noise
    data = put(Store(tmp_path), scores, dense, metric)
    line = stats.pooled(Store(tmp_path), "s", data).query("label == 'm'").iloc[0]
    row = data.query("label == 'm'").iloc[0]
    assert (line["seeds"], line["n"], line["state"]) == (1, 120, row["state"])
    for name in ("value", "value_low", "value_high", "stderr", "low", "high", "p_value", "p_match", "p_fail"):
        assert line[name] == pytest.approx(row[name], rel=1e-9), name


@pytest.mark.parametrize("k", [1, 3])
def test_a_model_that_broke_fails_and_is_no_missing_score(tmp_path, k):
    scores, dense = seeds(k)
    scores[0] = np.full(120, math.nan)
    data = put(Store(tmp_path), scores, dense, Metric("acc"))
    assert data.query("label == 'm'")["state"].iloc[0] == "fail"
    line = stats.pooled(Store(tmp_path), "s", data).query("label == 'm'").iloc[0]
    assert (line["state"], line["n"]) == ("fail", 120)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["mean", "exp"])
def test_the_tables_name_the_seed_that_broke(tmp_path, kind):
    scores, dense = seeds(3)
    scores[1] = np.full(120, math.nan if kind == "mean" else math.inf)
    data = put(Store(tmp_path), scores, dense, Metric("score", kind, kind == "mean"))
    study = kick_data.study("s", tmp_path, data)
    for page in (tables.quality(data)[0], kick_tables.table3(study)[0][0]):
        note = "m at 0.3, t: no finite score with seed 1 (3 seeds), which is a fail of all"
        assert page.notes() == [note]
    scores[1] = dense
    assert not tables.quality(put(Store(tmp_path / "whole"), scores, dense, Metric("acc")))[0].notes()


def test_dense_is_the_one_of_the_same_moment_where_the_task_measured_both(tmp_path):
    store = Store(tmp_path)
    data = put(store, [np.full(9, 3.0)], np.full(9, 2.0), Metric("ms", "median", False, margin=None))
    cell = data.query("label == 'm'")["cell"].iloc[0]
    task = store.get_task("s", cell, "t")
    store.put_task("s", cell, "t", task | {"items": [[*item[:4], {"dense": 4.0}] for item in task["items"]]})
    line = stats.pooled(store, "s", data).query("label == 'm'").iloc[0]
    assert (line["dense"], line["delta"], line["state"]) == (4.0, -1.0, "measured")


def test_several_seeds_are_pooled_and_tables_take_their_state(tmp_path):
    scores, dense = seeds(3, 400)
    data = put(Store(tmp_path), scores, dense, Metric("acc"))
    line = stats.pooled(Store(tmp_path), "s", data).query("label == 'm'").iloc[0]
    assert (line["seeds"], line["n"]) == (3, 400)
    assert line["value"] == pytest.approx(np.mean([s.mean() for s in scores]))
    assert line["spread"] == pytest.approx(np.std([s.mean() for s in scores], ddof=1))
    assert line["lost"] == pytest.approx(np.mean([((dense == 1) & (s == 0)).sum() for s in scores]))
    point = collect.points(collect.select(data)).query("label == 'm'").iloc[0]
    assert (point["state"], point["low"], point["seeds"]) == (line["state"], line["low"], 3)
    assert point["p_match"] == line["p_match"]


def test_the_same_answers_under_every_seed_are_as_good_as_one_seed():
    (one,), dense = seeds(1, 300)
    many = crossed.summarise(np.stack([one] * 3), dense, np.ones(300), crossed.Metric("mean", True, 0.05))
    single = compare(one, dense, np.ones(300))
    assert (many["low"], many["high"]) == pytest.approx((single.low, single.high), abs=1e-3)
    assert many["p_match"] == pytest.approx(single.p_match, rel=0.05)
    assert yes_no(one, dense, np.ones(300))


def test_one_small_loss_under_every_seed_makes_a_match_no_surer():
    dense = np.ones(50)
    score = np.concatenate([[5 / 6], dense[1:]])
    found = crossed.summarise(np.stack([score] * 3), dense, dense, crossed.Metric("mean", True, 0.05))
    assert found["p_match"] >= compare(dense, dense, dense).p_match


def test_the_variance_of_two_seeds_by_hand():
    """z = [[1, 3], [5, 11]]: item means 3 and 7, seed means 2 and 8, left 1 each; see the formula."""
    found = crossed.spread(np.array([[1.0, 3.0], [5.0, 11.0]]))
    rest = 4 / 1 / 4  # squares of what is left over (n-1)(k-1), over nk
    assert found.seeds == pytest.approx(18 / 2 - crossed.LEFT * rest)
    assert found.items == pytest.approx(8 / 2 - (1 - crossed.LEFT) * rest)


def test_a_tail_ends_where_the_interval_does():
    found = crossed.spread(np.random.default_rng(0).normal(0, 1, (3, 50)))
    assert found.tail(found.width) == pytest.approx(0.025, rel=1e-6)
    assert found.tail(-found.width) == pytest.approx(0.975, rel=1e-6)
    assert found.tail(0.0) == 0.5


def test_seeds_that_cannot_be_paired_are_named(tmp_path):
    scores, dense = seeds(2)
    data = put(Store(tmp_path), scores, dense, Metric("acc"))
    cell = f"{1:024d}"
    task = Store(tmp_path).get_task("s", cell, "t")
    Store(tmp_path).put_task("s", cell, "t", task | {"items": task["items"][1:]})
    with pytest.raises(ValueError, match="t of 'm': item 'q0' is not in every seed and in dense"):
        stats.pooled(Store(tmp_path), "s", data)
    Store(tmp_path).put_task("s", cell, "t", task | {"items": []})
    with pytest.raises(ValueError, match=r"study 's': task 't' of cell '0+1' has no stored items"):
        stats.pooled(Store(tmp_path), "s", data)


def test_rows_that_do_not_say_their_kind_are_found_by_their_value(tmp_path):
    nats = np.random.default_rng(0).gamma(4, 0.3, 50)
    data = put(Store(tmp_path), [nats + 0.1], nats, Metric("ppl", "exp", False)).assign(kind=None)
    line = stats.pooled(Store(tmp_path), "s", data).query("label == 'm'").iloc[0]
    assert line["value"] == pytest.approx(math.exp((nats + 0.1).mean()))
    with pytest.raises(ValueError, match="no kind"):
        stats.pooled(Store(tmp_path), "s", data.assign(value=-1.0))


@pytest.mark.parametrize(("change", "sign"), [(0.0, 1), (-0.1, -1)])
def test_planned_items_have_the_power_they_promise(change, sign):
    items = int(plan.items_of_shares(0.65, change, 0.1, 0.05, 0.8))
    rng, hits = np.random.default_rng(1), 0
    lost = 0.05 - min(0.0, 0.65 * change)
    for _ in range(600):
        u = rng.random(items)
        score, dense = ((u >= lost) & (u < 0.70)).astype(float), (u < 0.65).astype(float)
        hits += sign * ratio_score(score, dense, 0.95) >= 1.96
    assert 0.75 <= hits / 600 <= 0.86


def test_the_planner_speaks_plainly(tmp_path, capsys):
    assert math.isinf(plan.items_of_shares(0.65, -0.05, 0.1, 0.05, 0.8))
    assert plan.items_of_means(10, 0.0, 1.0, 0.05, 0.8) == math.ceil((1.96 + 0.8416) ** 2 / 0.25)
    plan.main(["--dense", "0.65"])
    assert "753" in capsys.readouterr().out
    for wrong, told in (
        (["--dense", "1.5"], "--dense=1.5: valid is between 0 and 1; a mean wants --sd"),
        (["--dense", "0.5", "--power", "1"], "--power=1: valid is between 0 and 1"),
        (["--dense", "0.5", "--loss", "5"], "--loss=5: valid is between 0 and 1"),
        (["--dense", "0.5", "--discordant", "-1"], "--discordant=-1: valid is 0 to 1"),
        (["--dense", "3", "--sd", "0"], "--sd=0: valid is above 0"),
        (["--dense", "0.05", "--discordant", "0.5"], "discordant=0.5: too many for dense=0.05"),
        ([], "valid is a STUDY or --dense, one of the two"),
    ):
        with pytest.raises(collect.AnalysisError, match=told):
            plan.main(wrong)
    scores, dense = seeds(1)
    put(Store(tmp_path), scores, dense, Metric("acc"))
    plan.main(["s", "--store", str(tmp_path)])
    assert "120" in capsys.readouterr().out
