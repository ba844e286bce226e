"""Gains of repairs at equal bytes: which cell is compared with which, what the sign says, what is drawn."""

import pytest
import synthetic_study

from analysis import collect, command, compensation

EORA = "methods.compensate.eora.EoRA"
CALIB = {"n": 8, "source": "builtin"}


def study(shares=(0.05, 0.1), budgets=(0.3, 0.5), seeds=(0, 1), better=lambda budget, share, seed: True):
    """Plain svd cells, and repaired ones whose scores are better or worse by a known step."""
    tasks = ("nano_factoid", "nano_ppl")
    plain = synthetic_study.rows(methods=("svd",), budgets=budgets, tasks=tasks, seeds=seeds)
    rows = [{**row, "config": {"method": {"align": 1}, "calib": CALIB}} for row in plain]
    for share in shares:
        repair = {"_target_": EORA, "share": share, "rank": None}
        for row in (r for r in rows[: len(plain)] if r["method"] == "svd"):
            sign = 1 if better(row["budget"], share, row["calib_seed"]) else -1
            ppl = row["metric"] == "perplexity"
            value = row["value"] * (1 - 0.1 * sign) if ppl else row["value"] + 0.02 * sign
            config = row["config"] | {"compensate": repair}
            rows.append({**row, "cell": f"{row['cell']}-{share}", "value": value, "config": config})
    return rows


def test_gains_have_the_sign_of_what_helps():
    lines = compensation.gains(collect.frame(study(better=lambda b, s, seed: b > 0.4)))
    assert len(lines) == 2 * 2 * 2
    assert set(lines["repair"]) == {"eora"}
    assert set(lines["level"]) == {"share 0.05", "share 0.1"}
    assert set(lines["seeds"]) == {2}
    assert lines["agree"].all()
    for line in lines.itertuples():
        size = 10 if line.metric == "perplexity" else 2
        assert line.gain == pytest.approx(size if line.budget > 0.4 else -size)
    assert (lines["plain_bytes"] == lines["repaired_bytes"]).all()


def test_seeds_that_disagree_are_told():
    lines = compensation.gains(collect.frame(study(better=lambda b, s, seed: seed == 0)), ["ppl"])
    assert set(lines["task"]) == {"nano_ppl"}
    assert not lines["agree"].any()
    assert lines["gain"].abs().max() < 1e-6


def test_other_tokens_are_not_compared_and_a_plain_cell_without_data_is():
    rows = study(seeds=(0,))
    for row in rows:
        if "compensate" in row["config"]:
            row["config"] = row["config"] | {"calib": {"n": 16, "source": "builtin"}}
    with pytest.raises(collect.AnalysisError, match="no repaired cell beside a plain one"):
        compensation.gains(collect.frame(rows))
    for row in rows:
        if "compensate" not in row["config"]:
            row["config"] = {"method": {"align": 1}}
    assert len(compensation.gains(collect.frame(rows))) == 8


def test_the_command_writes_the_table_and_a_figure_per_task(tmp_path, capsys, store_rows):
    store_rows(tmp_path / "results", "demo", study(seeds=(0,)))
    assert command.run(compensation.main, ["demo", "--store", str(tmp_path / "results")]) == 0
    names = [path.rpartition("/")[2] for path in capsys.readouterr().out.split()]
    assert names == ["compensation.csv", "compensation_factoid.png", "compensation_ppl.png"]
    figure = tmp_path / "results/demo/figures/compensation_ppl.png"
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_numbers_in_the_cells_and_crosses_where_none_is():
    lines = compensation.gains(collect.frame(study(better=lambda b, s, seed: b > 0.4)), ["ppl"])
    lines = lines[~((lines["budget"] == 0.3) & (lines["level"] == "share 0.1"))]
    (axis,) = [a for a in compensation.draw(lines)[0].axes if a.images]
    assert sorted(t.get_text() for t in axis.texts) == sorted(["+10", "+10", "-10", "×"])
    assert [t.get_text() for t in axis.get_yticklabels()] == ["0.05", "0.1"]
