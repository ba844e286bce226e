"""What a run says of itself while it works."""

from dataclasses import replace

import pytest
from cells import Probe

from crunchmark import progress
from crunchmark.interface import Skip
from methods.magnitude import Magnitude
from methods.slicegpt import SliceGPT
from methods.wanda import Wanda


@pytest.fixture
def said():
    """All events from here on."""
    events = []
    progress.listen(events.append)
    yield events
    progress.listen(None)


def outcomes(events):
    return [(event.method, event.outcome) for event in events if event.outcome]


def stages(events):
    """Method and stage, as they follow one another."""
    told = [(event.method, event.stage) for event in events if event.stage]
    return [one for i, one in enumerate(told) if i == 0 or told[i - 1] != one]


def test_a_cell_says_its_stages_and_layers_and_its_parents(runner, make, said):
    runner.run(make(Wanda(), 0.3))
    own = [stage for method, stage in stages(said) if method == "wanda"]
    assert own == ["load", "allocate", "compress", "pack", "task probe"]
    parents = [stage for method, stage in stages(said) if method == "dense"]
    assert parents[0] == "load"
    assert parents[-1] == "task probe"
    layers = [(e.step, e.steps) for e in said if e.method == "wanda" and e.unit == "layer" and e.step]
    assert [step for step, _ in layers] == [i + 1 for i in range(layers[0][1])]
    assert {e.stage for e in said if e.unit == "block" and e.method == "wanda"} == {"compress"}
    assert outcomes(said) == [("wanda", "done")]
    assert said[-1] == progress.IDLE


def test_a_method_that_goes_its_own_way_through_the_blocks_says_which(runner, make, said):
    runner.run(make(SliceGPT(), 0.3))
    blocks = [(e.step, e.steps) for e in said if e.unit == "block" and e.stage == "compress"]
    assert (1, 2) in blocks
    assert (2, 2) in blocks


def test_what_is_stored_already_is_cached_and_counted_once(runner, make, said, tmp_path):
    runner.run(make(Magnitude(), 0.3))
    said.clear()
    runner.run(make(Magnitude(), 0.3))
    assert outcomes(said) == [("magnitude", "cached")]
    assert stages(said) == []
    said.clear()
    runner.run(make(Magnitude(), 0.3, tasks={"probe": Probe(tmp_path / "log", version=2)}))
    assert outcomes(said) == [("magnitude", "done")]


def test_skipped_and_failed_cells_say_so(runner, make, said, monkeypatch):
    def refuse(*_):
        raise Skip("not with this")

    def fail(*_):
        raise RuntimeError("broken")

    cell = make(Magnitude(), 0.3)
    monkeypatch.setattr(Magnitude, "compress", refuse)
    for _ in range(2):  # the second time it is read from the store
        runner.run(cell)
    monkeypatch.setattr(Magnitude, "compress", fail)
    with pytest.raises(RuntimeError):
        runner.run(make(Magnitude(), 0.4))
    assert outcomes(said) == [("magnitude", "skipped")] * 2 + [("magnitude", "failed")]
    assert said[-1] == progress.IDLE


def test_a_stage_inside_a_stage_gives_way_to_the_outer_one(said):
    with progress.cell(progress.Event(cell="c", method="m")), progress.stage("outer"):
        progress.step(1, 3, "block")
        with progress.stage("inner"):
            assert said[-1].step == 0
        assert (said[-1].stage, said[-1].step, said[-1].steps) == ("outer", 2, 3)
    assert said[-2].outcome == "done"


def test_a_kind_is_the_method_and_what_is_around_it():
    event = progress.Event(method="svd", stages=("greedy", "eora"))
    assert event.kind == "svd greedy eora"
    assert replace(event, stages=()).kind == "svd"
    assert progress.named({"_target_": "methods.allocate.owl.OWL"}) == "owl"
