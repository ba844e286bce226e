"""`python run.py` with a judge on loopback: one that says nothing of use, and a kill while it answers."""

import signal
import time

import pytest
from forked import Run
from judge_server import ratings, serving

from crunchmark.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("endpoint")]
GOOD = ratings()


@pytest.fixture
def start(tmp_path):
    """start(server) -> the running process of one judged cell and its parent, parallel requests 1."""

    def run(server):
        judge = f"_target_: tasks.kick.judge.api.ApiJudge, model: m-1, base_url: '{server.url}'"
        own = f"key_env: JUDGE_KEY, parallel: 1, retries: 0, folder: {tmp_path}/judge"
        cell = ["method=magnitude", "budget=0.9", "task=nano_instruct", "limit=4", "study=s"]
        where = [f"store={tmp_path}/store", f"cache.dir={tmp_path}/cache"]
        judged = f"++task.nano_instruct.judge={{{judge}, {own}}}"
        return Run(*cell, judged, *where, JUDGE_KEY="sk-secret")

    return run


def judged(tmp_path):
    """(n, coverage, value) of the judged row of each cell."""
    rows = [row for row in Store(tmp_path / "store").rows("s") if row.get("metric") == "judge_overall"]
    return [(row["n"], row["coverage"], row["value"]) for row in rows]


def test_a_judge_that_says_nothing_of_use_is_a_failed_row_and_asked_again(start, tmp_path):
    with serving(lambda n, body: "I like both.") as server:
        code, _, errors = start(server).done()
        assert code == 1, errors
        (line,) = (line for line in errors.splitlines() if line.startswith("error: "))
        assert "answered 0 of " in line
        assert "it begins 'I like both.'" in line
        rows = Store(tmp_path / "store").rows("s")
        assert [row["state"] for row in rows] == ["failed", "failed"]  # the cell and its parent
        assert all("answered 0 of " in row["reason"] for row in rows)
        server.script = lambda n, body: GOOD
        code, _, errors = start(server).done()
    assert code == 0, errors
    assert judged(tmp_path) == [(4, 1.0, 6.0)] * 2
    assert not [row for row in Store(tmp_path / "store").rows("s") if row["state"] == "failed"]


def test_kill_9_while_a_judge_answers_then_again_asks_for_the_rest_only(start, tmp_path):
    folder = tmp_path / "judge"
    with serving(lambda n, body: ("slow", GOOD)) as server:
        process = start(server)
        deadline = time.monotonic() + 150
        while len(list(folder.glob("*.json"))) < 6 and time.monotonic() < deadline:
            assert not process.ended, process.text()
            time.sleep(0.02)
        process.kill()
        assert process.done()[0] == -signal.SIGKILL
        kept, first = len(list(folder.glob("*.json"))), [str(body) for body in server.bodies]
        code, _, errors = start(server).done()
    assert code == 0, errors
    second = [str(body) for body in server.bodies][len(first) :]
    assert kept >= 6
    assert len(second) == len(list(folder.glob("*.json"))) - kept > 0
    assert len(set(first) & set(second)) <= 1  # the one that was under way
    assert judged(tmp_path) == [(4, 1.0, 6.0)] * 2
