"""Which view a sweep has, what it counts, and that nothing of it can end a sweep."""

import io
import os
import sys
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from refusals import refused

import live
from analysis.status import Board
from crunchmark import progress
from crunchmark.machine import ROOT
from crunchmark.progress import Event
from crunchmark.pulse import signs
from launch import check_progress, guarded

CELL = Event("s", "key", "nano", "svd", (), 0.3)


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self):
        return True


def counted(*words):
    """What a sweep of these words is said to have, before it runs."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        fixed = [word for word in words if "," not in word]
        config = compose("config", fixed, return_hydra_config=True)
        config.hydra.overrides.task = list(words)
        return Counter(live._kind_of_job(job, config) for job in live.jobs(config))


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (["method=svd,wanda", "budget=0.3,0.5"], {"svd": 2, "wanda": 2}),
        (["method=dense,svd", "allocate=uniform,greedy"], {"dense": 2, "svd": 1, "svd greedy": 1}),
        (["method=svd", "compensate=eora", "seed=0,1,2"], {"svd eora": 3}),
        (["method=svd", "label=mine,yours"], {"mine": 1, "yours": 1}),
        (["budget=0.1,0.2"], {"dense": 2}),
        (["method=svd,", "budget=0.1"], {}),  # Hydra has its own line for it
    ],
)
def test_the_cells_of_a_grid_are_counted_before_it_runs(words, kinds):
    assert counted(*words) == kinds


def test_so_are_those_of_a_part_of_an_experiment():
    half = counted("experiment=kick_nano", "hydra.sweeper.part=1/2")
    assert half.total() > 50
    assert set(half) >= {"svd", "gptq", "slicegpt"}


@pytest.mark.parametrize(
    ("mode", "terminal", "env", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"CI": "true"}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("auto", False, {"FORCE_COLOR": "1"}, False),
        ("live", False, {"CI": "true"}, True),
        ("lines", True, {}, False),
        ("quiet", True, {}, False),
    ],
)
def test_a_view_is_drawn_where_somebody_looks(mode, terminal, env, expected, monkeypatch):
    for name in ("CI", "TERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    assert live.drawn(mode) == expected


def test_other_modes_are_refused():
    refused(lambda: check_progress("loud"), "progress='loud'", "valid: auto, live, lines, quiet")


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """sweep(mode) -> the standard error of a sweep of one cell that has begun, in a study that is there."""
    (tmp_path / "s").mkdir()
    choices = {"method": "svd", "allocate": "uniform", "compensate": "none"}
    hydra = SimpleNamespace(runtime=SimpleNamespace(choices=choices))

    def begun(mode):
        monkeypatch.setattr(sys, "stderr", Terminal())
        config = SimpleNamespace(store=str(tmp_path), study="s", label="svd", progress=mode, hydra=hydra)
        said = sys.stderr
        live.Show().on_run_start(config)
        return config, said

    yield begun
    live._open.close()


def wait(condition):
    end = time.time() + 10
    while not condition() and time.time() < end:
        time.sleep(0.01)
    assert condition()


def test_what_is_printed_stands_above_the_picture_which_goes_in_the_end(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, said = sweep("live")
    with progress.cell(CELL), progress.stage("compress"):
        progress.step(2, 42, "layer")
        sys.stderr.write("svd budget=0.2: [red]one line\n")
        assert not sys.stderr.isatty()  # others draw no bars of their own
        wait(lambda: "layer 3 of 42" in said.getvalue())
        wait(lambda: signs(tmp_path / "s")[0])
    live._open.close()
    assert sys.stderr is said
    assert "svd budget=0.2: [red]one line\n" in said.getvalue()
    assert said.getvalue().endswith(("\x1b[2K", "\x1b[?25h"))  # erased, the cursor is back
    assert list((tmp_path / "s").iterdir()) == []


def test_a_picture_that_can_not_be_drawn_costs_no_cell(sweep, monkeypatch):
    def broken(*_):
        raise RuntimeError("no\npicture")

    monkeypatch.setattr(Board, "draw", broken)
    _, said = sweep("live")
    wait(lambda: "no picture: RuntimeError" in said.getvalue())
    with progress.cell(CELL):
        pass
    assert live._pulse[0].sign.ended == {"svd": {"done": 1}}


@pytest.mark.parametrize("mode", ["lines", "quiet"])
def test_without_a_view_there_is_the_file_alone(sweep, tmp_path, mode):
    _, said = sweep(mode)
    wait(lambda: signs(tmp_path / "s")[0])
    assert sys.stderr is said
    assert said.getvalue() == ""


def test_a_config_that_is_no_cell_counts_as_refused(sweep):
    config, _ = sweep("quiet")
    live.Show().on_job_end(config, SimpleNamespace(_return_value=False))
    live.Show().on_job_end(config, SimpleNamespace(_return_value=True))
    assert live._pulse[0].sign.ended == {"svd": {"refused": 1}}


def test_a_process_of_a_launcher_belongs_to_the_sweep_and_draws_nothing(sweep, monkeypatch):
    config, said = sweep("live")
    owner = live._pulse[0].sign.sweep
    assert os.environ[live.SWEEP] == owner
    live._open.close()
    assert live.SWEEP not in os.environ
    monkeypatch.setenv(live.SWEEP, owner)  # as a child has it
    before = said.getvalue()
    live.Show().on_job_start(config)
    (own,) = live._pulse
    assert (own.sign.sweep, own.owner, own.sign.plan) == (owner, False, {})
    live.Show().on_job_start(config)
    assert live._pulse == [own]
    assert said.getvalue() == before


def test_whatever_ends_a_run_leaves_no_file(sweep, tmp_path, monkeypatch):
    _, said = sweep("live")
    wait(lambda: signs(tmp_path / "s")[0])

    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert guarded(stopped) == 130
    assert said.getvalue().endswith("stopped; the same command goes on from here\n")
    assert list((tmp_path / "s").iterdir()) == []
