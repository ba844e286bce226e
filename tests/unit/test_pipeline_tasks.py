"""What a task sees of its cell: the parent's notes, the bytes, the packed form, and its own memory."""

import shutil
from dataclasses import replace

from cells import Probe, runs

from crunchmark.task import Item, Metric, PairedTask
from crunchmark.view import TermLinear
from methods.rtn import RTN
from methods.svd import SVD


class Echo(PairedTask):
    """Scores the sum of the weights against what the parent wrote down."""

    name = "echo"

    def __init__(self, log):
        self.log = log

    def protocol(self):
        return "echo-1"

    def metrics(self):
        return {"gap": Metric("gap", higher_is_better=False, margin=None)}

    def remember(self, model, tokenizer, folder):
        with self.log.open("a") as file:
            file.write("x")
        (folder / "sum").write_text(repr(total(model)))

    def beside(self, model, tokenizer, folder):
        yield Item("all", "gap", abs(total(model) - float((folder / "sum").read_text())))


def total(model):
    return float(sum(p.detach().abs().sum() for p in model.parameters()))


def test_a_paired_task_sees_what_the_parent_wrote_once(runner, make, tmp_path):
    echo = {"echo": Echo(tmp_path / "log")}
    rows = [runner.run(make(SVD(), budget, tasks=echo))[0] for budget in (0.3, 0.5)]
    assert 0 < rows[0]["value"] < rows[1]["value"]
    assert [(row["dense"], row["state"]) for row in rows] == [(0.0, "measured")] * 2
    assert (tmp_path / "log").read_text() == "x"


class Sizes(Probe):
    """Scores the bytes of the artifact, and how many layers of the packed model run a term."""

    def ask(self, scene):
        terms = [sum(isinstance(m, TermLinear) for m in model.modules()) for model in (
            scene.model(packed=True), scene.dense(packed=True))]  # fmt: skip
        yield Item("bytes", "logp", scene.sizes()["file_bytes"], extra={"terms": terms})
        yield Item("bytes", "hit", 1.0)


class Alone(Probe):
    """Scores whether the packed model has the memory for itself."""

    def ask(self, scene):
        scene.model(packed=True)
        yield Item("alone", "hit", float(scene.exam._loaded is None))
        yield Item("alone", "logp", 0.0)


def test_a_packed_model_does_not_share_memory_with_what_a_task_before_it_left(runner, make, tmp_path):
    tasks = {"probe": Probe(tmp_path / "log"), "alone": Alone(tmp_path / "log", "alone")}
    rows = runner.run(make(SVD(), 0.3, tasks=tasks))
    assert [row["value"] for row in rows if (row["task"], row["metric"]) == ("alone", "hit")] == [1.0]


class Ends(Probe):
    """Scores how many tokens end an answer."""

    def run(self, model, tokenizer):
        ends = model.generation_config.eos_token_id
        yield Item("ends", "logp", float(len(ends) if isinstance(ends, list) else 1))
        yield Item("ends", "hit", 1.0)


def test_answers_end_where_the_checkpoints_generation_settings_say(runner, make, spec, tmp_path):
    """A chat model's config.json names one end token; that its turns end with another stands only there."""
    folder = tmp_path / "net"
    shutil.copytree(spec.folder, folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    tasks = {"ends": Ends(tmp_path / "log", "ends")}
    row = runner.run(make(SVD(), 0.3, tasks=tasks, model=replace(spec, path=str(folder))))[0]
    assert (row["value"], row["dense"]) == (2, 2)


def test_a_task_sees_the_bytes_and_the_packed_form(runner, make, tmp_path):
    cell = make(SVD(), 0.3, tasks={"sizes": Sizes(tmp_path / "log")})
    row = runner.run(cell)[0]
    assert row["value"] == row["file_bytes"]
    assert row["gpu_seconds"] == 0.0
    (item, _) = runner.exam.answers(cell, "sizes", cell.tasks["sizes"])["items"]
    assert item[4]["terms"][0] > 0 == item[4]["terms"][1]  # a dense weight runs as a linear layer


def test_the_same_weights_are_asked_once(runner, make, tmp_path):
    """8 bits are what a budget of 0.1 and one of 0.2 come to; a task about more than weights asks again."""
    one, two = (runner.run(make(RTN(), budget)) for budget in (0.1, 0.2))
    assert one[0]["setting"] == two[0]["setting"]
    assert [r["value"] for r in one] == [r["value"] for r in two]
    assert one[0]["cell"] != two[0]["cell"]
    assert runs(tmp_path) == ["probe"] * 2  # dense, and both
    clock = Probe(tmp_path / "log", name="clock")
    clock.of_weights = False
    for budget in (0.1, 0.2):
        runner.run(make(RTN(), budget, tasks={"clock": clock}))
    assert runs(tmp_path)[2:] == ["clock"] * 3
