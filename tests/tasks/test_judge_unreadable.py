"""Replies that cannot be read: asked for again, never kept; a judge that gives none is a failure."""

import errno
import json

import pytest
from judge_server import asked, cases, completion, judge, ratings, serving
from refusals import refused

from tasks.kick.judge import Judge, Score
from tasks.kick.judge.base import rated
from tasks.nano.talks import NanoInstructions

pytestmark = pytest.mark.slow

GOOD = ratings()
PROSE = "I like\nboth."


def mixed(number, body):
    """Prose about the second question, ratings of the others."""
    return PROSE if "Question 1?" in str(body) else GOOD


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize("bad", [PROSE, "", GOOD[:-4], ("raw", b'{"choices": []}')])
def test_what_cannot_be_read_is_asked_for_again(tmp_path, bad):
    with serving(lambda n, body: bad if n < 2 else GOOD) as server:
        (found,) = asked(judge(server, tmp_path, parallel=1, retries=2), cases(1))
    assert (found.score, found.extra["votes"]) == (6.0, "2/2")
    assert len(server.bodies) == 3 + 1
    assert [json.loads(path.read_text())["reply"] for path in tmp_path.iterdir()] == [GOOD, GOOD]


@pytest.mark.usefixtures("endpoint")
def test_as_often_as_the_settings_say(tmp_path):
    for retries in (0, 3):
        with serving(mixed) as server:
            asked(judge(server, tmp_path / str(retries), retries=retries), cases(3))
        assert len(server.bodies) == 4 + 2 * (retries + 1)


@pytest.mark.usefixtures("endpoint")
def test_the_next_run_asks_for_what_could_not_be_read_and_nothing_else(tmp_path):
    with serving(mixed) as server:
        one = judge(server, tmp_path, retries=0)
        assert [s.score for s in asked(one, cases(3))] == [6.0, None, 6.0]
        assert len(list(tmp_path.iterdir())) == 4
        server.script = lambda n, body: GOOD
        assert [s.score for s in asked(one, cases(3))] == [6.0, 6.0, 6.0]
        assert all("Question 1?" in str(body) for body in server.bodies[6:])
        assert len(server.bodies) == 6 + 2


@pytest.mark.usefixtures("endpoint")
def test_a_reply_kept_by_an_earlier_version_is_asked_again_if_it_cannot_be_read(tmp_path):
    with serving(lambda n, body: GOOD) as server:
        one = judge(server, tmp_path)
        asked(one, cases(1))
        kept = next(tmp_path.iterdir())
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"reply": PROSE}))
        assert [s.score for s in asked(one, cases(1))] == [6.0]
        assert len(server.bodies) == 2 + 1


@pytest.mark.usefixtures("endpoint")
def test_nothing_that_can_be_read_is_one_line_with_the_reply(tmp_path):
    with serving(lambda n, body: PROSE) as server:
        refused(
            lambda: asked(judge(server, tmp_path, retries=1), cases(2)),
            "'m-1'", "answered 0 of 4", "a reply can not be read: it begins 'I like\\nboth.'", "valid:",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("endpoint")
def test_a_reply_that_max_tokens_cut_says_so(tmp_path):
    told = completion(GOOD[:-4])
    told["choices"][0]["finish_reason"] = "length"
    with serving(lambda n, body: ("raw", json.dumps(told).encode())) as server:
        refused(lambda: asked(judge(server, tmp_path, retries=0), cases(1)), "ends at max_tokens")


@pytest.mark.usefixtures("endpoint")
def test_least_counts_what_can_be_read(tmp_path):
    with serving(mixed) as server:
        refused(lambda: asked(judge(server, tmp_path, retries=0, least=0.9), cases(3)), "answered 4 of 6")


@pytest.mark.usefixtures("endpoint")
def test_a_folder_that_can_not_be_written_is_named_and_no_reply_that_cannot_be_read(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").write_text("in the way")
    with serving(lambda n, body: GOOD) as server:
        one = judge(server, tmp_path / "file")
        refused(lambda: asked(one, cases(1)), f"judge.folder={tmp_path / 'file'} can not be written")
        assert server.bodies == []
        monkeypatch.setattr("tasks.kick.judge.api.write_json", full)
        refused(lambda: asked(judge(server, tmp_path), cases(1)), "can not be written: No space left")


class Mute(Judge):
    """Scores the given share of the cases."""

    def __init__(self, share):
        self.share = share

    def protocol(self):
        return {"judge": "mute"}

    def metrics(self, kind, gold=False, facts=False):
        return rated(kind)

    def judge(self, cases, model, tokenizer):
        for place, case in enumerate(cases):
            yield Score(case.id, "judge_overall", 7.0 if place < self.share * len(cases) else None)


class Silent(NanoInstructions):
    """The same words from every model, so that none is needed."""

    def answers(self, model, tokenizer):
        from tasks.kick.generate import Answer

        return {talk.id: [Answer((5,), "so", False)] * 2 for talk in self.talks}

    def _prompt(self, talk, said, tokenizer):
        return [5]

    def _longest(self, talk, tokenizer):
        return 9


def test_a_task_whose_judge_scored_nothing_fails_and_half_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.kick.judge.proxies.Proxies.judge", lambda *_: iter(()))
    none, half = (Silent("t", limit=4, judge=Mute(share)) for share in (0, 0.5))
    none.remember(None, None, tmp_path)
    refused(lambda: list(none.beside(None, None, tmp_path)), "t.judge gave none of 4 items a score", "valid:")
    scores = [i.score for i in half.beside(None, None, tmp_path) if i.metric == "judge_overall"]
    assert scores == [7.0, 7.0, None, None]
