"""The API judge against a real server on loopback that misbehaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from judge_server import asked, cases, judge, ratings, serving
from refusals import refused

from crunchmark.evaluate import rows
from crunchmark.machine import ROOT
from crunchmark.task import Item
from tasks.kick.judge import Case

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("endpoint")]
GOOD = ratings()


def test_both_orders_are_sent_and_averaged(tmp_path):
    """A judge that favours the first place by two gives both answers the same score."""
    with serving(lambda n, body: GOOD) as server:
        found = asked(judge(server, tmp_path), cases(2))
    assert [(s.id, s.metric, s.score) for s in found] == [
        ("q0", "judge_overall", 6.0),
        ("q1", "judge_overall", 6.0),
    ]
    assert found[0].extra["reference_score"] == 6.0
    assert found[0].extra["judge"] == "m-1"
    sent = [body["messages"][0]["content"] for body in server.bodies if "Question 0?" in str(body)]
    assert sorted(text.index("reference 0") < text.index("answer 0") for text in sent) == [False, True]
    assert set(server.keys) == {"Bearer sk-secret"}
    assert all(body["response_format"]["json_schema"]["strict"] for body in server.bodies)


def test_a_better_answer_scores_better_in_either_place(tmp_path):
    def prefers_answer(number, body):
        text = body["messages"][0]["content"]
        first = text.index("answer 0") < text.index("reference 0")
        return ratings(9, 2) if first else ratings(2, 9)

    with serving(prefers_answer) as server:
        (found,) = asked(judge(server, tmp_path), cases(1))
    assert found.score == 9.0
    assert found.extra["reference_score"] == 2.0


def test_one_order_by_name(tmp_path):
    with serving(lambda n, body: GOOD) as server:
        (found,) = asked(judge(server, tmp_path, orders="reference_first"), cases(1))
    assert found.score == 5.0
    assert len(server.bodies) == 1


def test_equal_answers_are_sent_once_for_both_orders(tmp_path):
    """The dense parent beside itself; a judge that favours a place gives both places to both."""
    same = Case("q", "chat", "Q?", ("so",), ("so",))
    with serving(lambda n, body: GOOD) as server:
        (found,) = asked(judge(server, tmp_path), [same])
    assert (len(server.bodies), found.score, found.extra["reference_score"]) == (1, 6.0, 6.0)


def test_votes_are_asked_and_averaged(tmp_path):
    with serving(lambda n, body: ratings(4 + n, 4 + n)) as server:
        (found,) = asked(judge(server, tmp_path, votes=3, parallel=1), cases(1))
    assert len(server.bodies) == 6
    assert found.score == pytest.approx((4 + 5 + 6 + 7 + 8 + 9) / 6)
    assert found.extra["votes"] == "6/6"


def test_every_aspect_has_a_score(tmp_path):
    names = ("coherence", "consistency", "fluency", "relevance")
    with serving(lambda n, body: ratings(6, 8, names)) as server:
        found = asked(judge(server, tmp_path), cases(1, "summary"))
    assert {s.metric: s.score for s in found} == {f"judge_{name}": 7.0 for name in names}


def test_a_second_run_sends_nothing(tmp_path):
    with serving(lambda n, body: GOOD) as server:
        first = asked(judge(server, tmp_path), cases())
        sent = len(server.bodies)
        assert asked(judge(server, tmp_path), cases()) == first
        assert len(server.bodies) == sent == 6
        asked(judge(server, tmp_path, temperature=0.5), cases(1))
        assert len(server.bodies) == sent + 2  # other content, another question


def test_the_key_is_stored_nowhere(tmp_path):
    with serving(lambda n, body: GOOD) as server:
        asked(judge(server, tmp_path), cases())
    texts = [p.read_text() for p in tmp_path.iterdir()]
    assert len(texts) == 6
    assert not any("sk-secret" in text for text in texts)


BAD_THEN_GOOD = {
    "429": ("status", 429),
    "500": ("status", 500),
    "half an answer": "half",
    "silent": "silent",
}


@pytest.mark.parametrize("what", BAD_THEN_GOOD)
def test_what_passes_is_tried_again(tmp_path, what):
    with serving(lambda n, body: BAD_THEN_GOOD[what] if n == 0 else GOOD) as server:
        found = asked(judge(server, tmp_path, parallel=1, timeout=0.4), cases(1))
    assert found[0].score == 6.0
    assert len(server.bodies) == 3


def test_slow_is_no_failure(tmp_path):
    with serving(lambda n, body: ("slow", GOOD)) as server:
        assert [s.score for s in asked(judge(server, tmp_path), cases(2))] == [6.0, 6.0]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (("status", 500), "HTTP 500"),
        (("status", 401), "HTTP 401"),
        ("half", "onnection"),
        (("raw", b"<html>hello</html>"), ""),
        (("raw", b'{"choices": []}'), "no chat completion"),
        (("raw", b'{"hello": [1]}'), "no chat completion"),
        (("raw", b"[]"), "no chat completion"),
    ],
)
def test_an_endpoint_that_never_answers_fails_in_one_line(tmp_path, step, reason):
    with serving(lambda n, body: step) as server:
        refused(
            lambda: asked(judge(server, tmp_path, retries=1), cases(2)),
            server.url, "'m-1'", "answered 0 of 4", reason,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_the_message_does_not_repeat_the_key(tmp_path):
    with serving(lambda n, body: ("status", 401)) as server, pytest.raises(ValueError, match="401") as e:
        asked(judge(server, tmp_path), cases(1))
    assert "sk-secret" not in str(e.value)


@pytest.mark.parametrize("step", ["silent", "drip"])
def test_the_deadline_holds_whatever_the_server_does(tmp_path, step):
    start = time.monotonic()
    with serving(lambda n, body: step) as server:
        refused(lambda: asked(judge(server, tmp_path, deadline=0.5), cases(4)), "answered 0 of 8", "deadline")
    assert time.monotonic() - start < 5


def test_nobody_listens(tmp_path):
    with serving(lambda n, body: GOOD) as server:
        pass
    refused(lambda: asked(judge(server, tmp_path, retries=0), cases(1)), "answered 0 of 2", server.url)


@pytest.mark.slow
def test_what_cannot_be_read_is_counted_not_averaged(tmp_path):
    """One of three cases gets prose: coverage is two thirds, and the mean is that of the others."""

    def script(number, body):
        return "I like both." if "Question 1?" in str(body) else GOOD

    with serving(script) as server:
        one = judge(server, tmp_path)
        found = asked(one, cases(3))
        assert [s.score for s in found] == [6.0, None, 6.0]
    items = [Item(s.id, s.metric, s.score, s.weight, s.extra) for s in found]
    (row,) = rows("t", "p", items, one.metrics("chat"), None)
    assert row["value"] == 6.0
    assert row["n"] == 2
    assert row["coverage"] == pytest.approx(2 / 3)
    assert row["flags"] == {"unjudged": 1}


def test_one_order_alone_is_no_score(tmp_path):
    def script(number, body):
        text = str(body["messages"])
        return GOOD if text.index("reference 0") < text.index("answer 0") else "none"

    with serving(script) as server:
        (found,) = asked(judge(server, tmp_path), cases(1))
    assert found.score is None
    assert found.extra["votes"] == "1/2"


def test_a_vote_that_is_lost_leaves_the_others(tmp_path):
    with serving(lambda n, body: "garbage" if n == 0 else GOOD) as server:
        (found,) = asked(judge(server, tmp_path, votes=2, parallel=1, retries=0), cases(1))
    assert found.score == 6.0
    assert found.extra["votes"] == "3/4"


def test_some_answered_is_coverage_and_least_makes_it_a_failure(tmp_path):
    def script(number, body):
        return ("status", 500) if "Question 1?" in str(body) and number < 20 else GOOD

    with serving(script) as server:
        strict = judge(server, tmp_path, retries=0, least=1.0)
        refused(lambda: asked(strict, cases(3)), "answered 4 of 6", "kept")
        assert len(list(tmp_path.iterdir())) == 4
        found = asked(judge(server, tmp_path, retries=0), cases(3))
        assert [s.score for s in found] == [6.0, None, 6.0]
        assert len(server.bodies) == 8  # four were known, two were asked again
        server.script = lambda n, body: GOOD
        assert [s.score for s in asked(strict, cases(3))] == [6.0, 6.0, 6.0]
        assert len(server.bodies) == 10


KILLED = """
import sys
from tasks.kick.judge import Case
from tasks.kick.judge.api import ApiJudge
judge = ApiJudge("m-1", sys.argv[1], key_env="JUDGE_KEY", folder=sys.argv[2], parallel=1)
cases = [Case(f"q{i}", "chat", f"Question {i}?", (f"reference {i}",), (f"answer {i}",)) for i in range(3)]
list(judge.judge(cases, None, None))
"""


@pytest.mark.slow
def test_a_kill_in_the_middle_resumes(tmp_path):
    """The process is killed while it waits for the fourth reply; the next run asks for three only."""
    with serving(lambda n, body: GOOD if n < 3 else "silent") as server:
        process = subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(tmp_path)], cwd=ROOT)
        while len(server.bodies) < 4:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len([p for p in tmp_path.iterdir() if p.suffix == ".json"]) == 3
        server.script = lambda n, body: GOOD
        assert [s.score for s in asked(judge(server, tmp_path), cases(3))] == [6.0, 6.0, 6.0]
        assert len(server.bodies) == 4 + 3


def test_replies_survive_the_trimming_of_a_cache(tmp_path):
    """What was paid for lies beside the cache's folders, which are dropped when it is full."""
    from crunchmark.cache import Cache

    with serving(lambda n, body: GOOD) as server:
        asked(judge(server, tmp_path / "judge"), cases(1))
    store = Cache(tmp_path, max_gb=1e-9)
    for key in ("a", "b"):
        with store.folder("scores", key, lambda temp: Path(temp / "x").write_text("y" * 100)):
            pass
    assert len(list((tmp_path / "judge").glob("*.json"))) == 2


def test_a_status_is_said_once(tmp_path):
    with serving(lambda n, body: ("bare", 503)) as server, pytest.raises(ValueError, match="HTTP 503") as e:
        asked(judge(server, tmp_path, retries=0), cases(1))
    assert "Error code" not in str(e.value)
    assert str(e.value).count("503") == 1
