"""Expected beside measured, for studies that ran, ran in part, or did not run."""

import pytest

from analysis import collect
from analysis.reproduce import EXPERIMENTS, everything, main, of_study
from crunchmark.store import Store

EXPECTED = {
    **{"task": "ppl", "metric": "perplexity", "dense": 5.0, "values": {"0.2": 8.0, "0.4": 20.0, "0.6": 50.0}},
    **{"tolerance": 0.05, "source": "arXiv:0000.00000 Table 1", "status": "not attempted here"},
}


def row(value, metric="perplexity"):
    return {"task": "ppl", "metric": metric, "value": value, "state": "match"}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    cells = {"dense": (0.0, 5.01), "one": (0.2, 8.3), "two": (0.2, 8.5)}
    for key, (budget, value) in cells.items():
        made.put_cell("paper", key, {"method": "m", "budget": budget, "expected": EXPECTED})
        made.put_task("paper", key, "ppl", {"rows": [row(value), row(99.0, "word_perplexity")]})
    lost = {"state": "unreachable", "reason": "budget: too small"}
    made.put_cell("paper", "three", {"method": "m", "budget": 0.6, "expected": EXPECTED, **lost})
    made.put_cell("other", "one", {"method": "m", "budget": 0.2})
    return made


def test_every_number_has_a_line_and_every_draw_its_own(store):
    found = [(p.budget, p.expected, p.measured, p.status) for p in of_study("paper", store)]
    assert found == [
        (0.0, 5.0, 5.01, "agrees"),
        (0.2, 8.0, 8.3, "agrees"),
        (0.2, 8.0, 8.5, "differs"),
        (0.4, 20.0, None, "not attempted here"),
        (0.6, 50.0, None, "unreachable"),
    ]
    assert of_study("paper", store)[2].off == pytest.approx(0.0625)


def test_a_cell_without_that_task_is_not_measured(store):
    store.put_cell("paper", "four", {"method": "m", "budget": 0.4, "expected": EXPECTED})
    store.put_task("paper", "four", "mcr", {"rows": [{"task": "mcr", "metric": "perplexity", "value": 1.0}]})
    assert [p.status for p in of_study("paper", store) if p.budget == 0.4] == ["not measured"]


def test_what_is_no_such_study_is_refused(store):
    with pytest.raises(collect.AnalysisError, match="study 'nope' is not in"):
        of_study("nope", store)
    with pytest.raises(collect.AnalysisError, match=r"study='other': no row says what is expected"):
        of_study("other", store)


@pytest.mark.slow
def test_experiments_that_did_not_run_are_listed_too(store, capsys):
    found = everything(store)
    files = list(EXPERIMENTS.glob("*.yaml"))
    assert {p.study for p in found} == {f.stem for f in files}
    assert {p.status for p in found} == {"not attempted here"}
    assert sum(p.budget == 0 for p in found) == len(files) == 50
    assert main(["paper", "--store", str(store.root)]) == []
    shown = capsys.readouterr().out
    assert "+6.2%" in shown
    assert "agrees" in shown
    main(["--store", str(store.root)])
    assert "slicegpt_opt_125m" in capsys.readouterr().out
