"""Files of stories and of questions: what is read, what is drawn, and what is wrong with them."""

import json

import pytest
from refusals import refused
from transformers import AutoModelForCausalLM, AutoTokenizer

from crunchmark.evaluate import rows
from crunchmark.machine import ROOT
from tasks.kick.generate import Decode, prompt_ids
from tasks.kick.instruct import Instructions
from tasks.kick.summ import Summaries, story_of

REAL = ROOT.parent / "shared" / "data"
real = pytest.mark.skipif(
    not REAL.is_dir(),
    reason="no ../shared/data here: real stories, questions and models are not in the repository",
)


def story(folder, name, words, highlights=1):
    folder.mkdir(exist_ok=True)
    told = "".join(f"\n\n@highlight\n\nPoint {n} of it" for n in range(highlights))
    (folder / f"{name}.story").write_text("word " * words + told)


def test_highlights_are_stripped_and_are_the_gold(tmp_path):
    found = story_of(
        "x", "A (CNN) story.\n\nMore @highlight here.\n\n@highlight\n\nOne\n\n@highlight\n\nTwo\nlines\n"
    )
    assert found.body == "A (CNN) story.\n\nMore @highlight here."
    assert found.highlights == ("One", "Two lines")
    story(tmp_path, "a", 20, 2)
    (talk,) = Summaries("s", path=str(tmp_path)).talks
    assert "Point" not in talk.turns[0]
    assert talk.gold == "Point 0 of it\nPoint 1 of it"
    (kept,) = Summaries("s", path=str(tmp_path), strip=False).talks
    assert "@highlight\n\nPoint 1 of it" in kept.turns[0]


def test_buckets_are_disjoint_whatever_the_count(tmp_path):
    for words in (1, 470, 471, 549, 550, 789, 790, 899, 900, 2000):
        story(tmp_path, f"w{words}", words)
    for count in ("marks", "words"):
        found = [Summaries("s", path=str(tmp_path), bucket=b, count=count).talks for b in "sml"]
        ids = [talk.id for talks in found for talk in talks]
        assert len(ids) == len(set(ids)) == 10
    assert (
        Summaries("s", path=str(tmp_path), stories=3).protocol()
        != Summaries("s", path=str(tmp_path), stories=3, seed=1).protocol()
    )


def test_bad_stories_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    story(tmp_path / "bare", "x", 30, 0)
    story(tmp_path / "short", "x", 30)
    story(tmp_path / "twice", "x", 30)
    story(tmp_path / "twice" / "b", "x", 31)
    refused(lambda: Summaries("s", path=str(tmp_path / "empty")).talks, "s.path=", "no .story file")
    refused(lambda: Summaries("s", path=str(tmp_path / "none")).talks, "s.path=", "no .story file")
    refused(lambda: Summaries("s", path=str(tmp_path / "bare")).talks, "'x'", "no @highlight")
    refused(lambda: Summaries("s", path=str(tmp_path / "short"), bucket="l").talks, "no story of length 900")
    refused(lambda: Summaries("s", path=str(tmp_path / "twice")).talks, "'x'", "ids that differ")
    refused(lambda: Summaries("s"), "s.path=None", "valid: one of")
    refused(lambda: Summaries("s", path="x", bucket="xl"), "s.bucket='xl'", "valid")
    refused(lambda: Summaries("s", path="x", count="chars"), "s.count='chars'", "valid")
    refused(lambda: Summaries("s", path="x", prompt="sum up"), "{story}", "valid")
    refused(lambda: Summaries("s", path="x", judge=None), "s.judge=None", "valid")


def questions(path, *changes):
    good = {"question_id": 1, "category": "math", "turns": ["How many?", "And now?"]}
    lines = [{k: v for k, v in (good | change).items() if v is not ...} for change in changes]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"category": ...}, "category=None"),
        ({"turns": ...}, "turns=None"),
        ({"question_id": ...}, "question_id=None"),
        ({"turns": ["One?"]}, "1 of 2 turns"),
        ({"turns": ["One?", " "]}, "turns"),
        ({"turns": "One?"}, "turns='One?'"),
    ],
)
def test_bad_questions_are_one_line(tmp_path, change, part):
    path = questions(tmp_path / "q.jsonl", {}, {"question_id": 2} | change)
    refused(lambda: Instructions("i", path=path).talks, "question 2", part, "valid")


def test_bad_question_files_are_one_line(tmp_path):
    twice = questions(tmp_path / "twice.jsonl", {}, {})
    refused(lambda: Instructions("i", path=twice).talks, "two items have the id '1'")
    (tmp_path / "no.jsonl").write_text('{"question_id": 1\n')
    refused(lambda: Instructions("i", path=str(tmp_path / "no.jsonl")).talks, "line 1")
    (tmp_path / "empty.jsonl").write_text("\n")
    refused(lambda: Instructions("i", path=str(tmp_path / "empty.jsonl")).talks, "no items")
    refused(lambda: Instructions("i", path=str(tmp_path / "gone.jsonl")).talks, "i.path=", "No such file")
    refused(lambda: Instructions("i"), "i.path=None", "question_id")


@pytest.fixture(scope="module")
def stories260k():
    folder = REAL / "models" / "stories260K"
    return AutoModelForCausalLM.from_pretrained(folder).float().eval(), AutoTokenizer.from_pretrained(folder)


@real
def test_real_stories_make_three_buckets_without_leaks():
    folder = str(REAL / "llm_kick" / "stories")
    found = {b: Summaries("s", path=folder, bucket=b).talks for b in "sml"}
    ids = [talk.id for talks in found.values() for talk in talks]
    assert len(ids) == len(set(ids)) == 72  # 90 files, 18 of them twice
    assert not any("@highlight" in talk.turns[0] for talks in found.values() for talk in talks)
    assert all(talk.gold for talks in found.values() for talk in talks)
    kept = Summaries("s", path=folder + "/mid", strip=False, count="words").talks
    assert len(kept) == 30
    assert all("@highlight" in talk.turns[0] for talk in kept)


@pytest.mark.slow
@real
def test_real_stories_that_do_not_fit_are_counted(stories260k):
    decode = Decode(max_new_tokens=16)
    task = Summaries("s", path=str(REAL / "llm_kick" / "stories"), bucket="s", decode=decode)
    (row, *_) = rows("s", "p", list(task.run(*stories260k)), task.metrics(), None)
    lengths = [len(prompt_ids(stories260k[1], list(t.turns))) for t in task.talks]
    fit = sum(length + 16 <= 512 for length in lengths)
    assert 0 < fit < len(lengths)
    assert row["metric"] == "rouge_l"
    assert row["n"] == fit
    assert row["flags"]["too_long"] == len(lengths) - fit


@pytest.mark.slow
@real
def test_real_questions_are_asked_in_two_turns(stories260k):
    path = str(REAL / "llm_kick" / "mt_bench_questions.jsonl")
    task = Instructions("i", path=path, decode=Decode(max_new_tokens=8), limit=12)
    items = list(task.run(*stories260k))
    table = {row["metric"]: row for row in rows("i", "p", items, task.metrics(), None)}
    assert next(iter(table)) == "answer_ppl"
    assert table["agree_exact"]["value"] == 1.0
    assert len({i.extra["group"] for i in items}) == 2
    said = [i.extra["prediction"] for i in items if "prediction" in i.extra]
    assert all(len(turns) == 2 for turns in said)
    asked = [i.extra["question"] for i in items if "question" in i.extra]
    assert len(asked) == len(said) == 12
    assert all(text.startswith("Turn 1: ") for text in asked)
    assert len(Instructions("i", path=path).talks) == 80


@real
def test_single_turn_questions_are_refused_where_two_are_asked():
    path = str(REAL / "llm_kick" / "vicuna_bench_questions.jsonl")
    refused(lambda: Instructions("i", path=path).talks, "question 1", "1 of 2 turns")
    assert len(Instructions("i", path=path, turns=1).talks) == 80
