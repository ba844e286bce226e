"""Generation, length guard, talks of two turns, proxies, and the local judge."""

import json
import math

import pytest
import torch
from test_judge_api import refused
from transformers import AutoModelForCausalLM, AutoTokenizer

from crunchmark.evaluate import rows
from crunchmark.machine import ROOT
from tasks.kick.generate import Decode, generate, prompt_ids
from tasks.kick.instruct import Instructions
from tasks.kick.judge import Case, Judge, Score
from tasks.kick.judge.base import question
from tasks.kick.judge.local import LocalJudge, rating_ids, spread
from tasks.kick.judge.proxies import Proxies, answer_losses, covered, f1, repetition, rouge_l, told
from tasks.kick.summ import Summaries, story_of
from tasks.nano.talks import NanoInstructions, NanoSummaries

NANO = ROOT / "tasks" / "nano"
REAL = ROOT.parent / "shared" / "data"
real = pytest.mark.skipif(
    not REAL.is_dir(),
    reason="no ../shared/data here: real stories, questions and models are not in the repository",
)


@pytest.fixture(scope="module")
def nano():
    model = AutoModelForCausalLM.from_pretrained(NANO / "model", dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(NANO / "model")


@pytest.fixture(scope="module")
def prompts(nano):
    """Prompts of very different lengths."""
    found = []
    for name in ("factoid", "summ"):
        for line in (NANO / "data" / f"{name}.jsonl").read_text().splitlines()[:4]:
            row = json.loads(line)
            text = f"{row['passage']}\n{row['prompt']}" if "passage" in row else row["prompt"]
            found.append((row["id"], prompt_ids(nano[1], [text], "raw")))
    return found


def test_a_batch_answers_what_each_prompt_answers_alone(nano, prompts):
    decode = Decode(max_new_tokens=24, stop=["\n"])
    together = generate(*nano, prompts, decode, batch=8)
    assert together == [generate(*nano, [one], decode)[0] for one in prompts]
    assert (
        together[0].text
        == " " + json.loads((NANO / "data" / "factoid.jsonl").read_text().splitlines()[0])["answer"]
    )


@pytest.mark.parametrize("name", ["gpt2", "opt", "mistral", "gpt_neox", "qwen3"])
def test_families_are_padded_right(tiny, nano, name):
    """No family's positions may count the padding."""
    model = tiny(name, vocab_size=len(nano[1]))
    given = [("a", [5, 6, 7]), ("b", [9, 8, 7, 6, 5, 4, 3]), ("c", [11])]
    decode = Decode(max_new_tokens=6)
    alone = [generate(model, nano[1], [one], decode)[0] for one in given]
    assert generate(model, nano[1], given, decode, batch=3) == alone


def test_a_checkpoints_own_settings_do_not_count(nano, prompts):
    model, tokenizer = nano
    decode = Decode(max_new_tokens=12)
    before = generate(model, tokenizer, prompts[:2], decode)
    own = model.generation_config
    try:
        changed = type(own)(repetition_penalty=5.0, do_sample=True, temperature=3.0, max_length=3)
        model.generation_config = changed
        assert generate(model, tokenizer, prompts[:2], decode) == before
        assert model.generation_config is changed
    finally:
        model.generation_config = own


def test_answers_end_before_the_stop_string(nano, prompts):
    plain = generate(*nano, prompts[4:6], Decode(max_new_tokens=24, stop=["\n"]))
    stopped = generate(*nano, prompts[4:6], Decode(max_new_tokens=24, stop=[", "]))
    for whole, part in zip(plain, stopped, strict=True):
        assert part.text == whole.text.split(", ")[0]
        assert nano[1].decode(list(part.ids)) == part.text
        assert not part.cut
    (short,) = generate(*nano, prompts[4:5], Decode(max_new_tokens=3, stop=["\n"]))
    assert short.cut
    assert short.ids == plain[0].ids[:3]


def test_sampling_depends_on_the_name_only(nano, prompts):
    decode = Decode(max_new_tokens=16, temperature=2.0)
    state = torch.get_rng_state()
    one = generate(*nano, prompts[:3], decode)
    assert generate(*nano, prompts[2:0:-1], decode) == [one[2], one[1]]
    assert torch.equal(torch.get_rng_state(), state)
    assert generate(*nano, prompts[:3], Decode(max_new_tokens=16, temperature=2.0, seed=1)) != one


def test_decode_is_checked():
    refused(lambda: Decode(max_new_tokens=0), "max_new_tokens=0", "valid")
    refused(lambda: Decode(temperature=-1), "temperature=-1", "valid")
    refused(lambda: Decode(stop="\n"), "stop=", "valid")
    refused(lambda: Decode(stop=[""]), "stop=", "valid")


def test_prompts_follow_the_template_where_there_is_one(nano):
    tokenizer = AutoTokenizer.from_pretrained(NANO / "model")
    talk = ["Who?", "Me.", "When?"]
    assert (
        tokenizer.decode(prompt_ids(tokenizer, talk)) == "User: Who?\nAssistant: Me.\nUser: When?\nAssistant:"
    )
    assert tokenizer.decode(prompt_ids(tokenizer, ["Who?\nAnswer:", " Me.", "When?"], "raw")) == (
        "Who?\nAnswer: Me.\nWhen?"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    assert tokenizer.decode(prompt_ids(tokenizer, talk)) == "[user] Who? [assistant] Me. [user] When? >"


class Recorder(Judge):
    """Keeps the cases it is given."""

    def __init__(self):
        self.cases = []

    def protocol(self):
        return {"judge": "recorder"}

    def metrics(self, kind, gold=False, facts=False):
        return Proxies().metrics(kind, gold, facts)

    def judge(self, cases, model, tokenizer):
        self.cases += cases
        yield from Proxies().judge(cases, model, tokenizer)


def test_the_second_prompt_holds_the_models_own_first_answer(nano, tmp_path):
    recorder = Recorder()
    task = NanoInstructions("nano_instruct", limit=5, judge=recorder)
    task.remember(*nano, tmp_path)
    items = list(task.beside(*nano, tmp_path))
    for talk, case in zip(task.talks, recorder.cases, strict=True):
        first, second = (nano[1].decode(list(prompt)) for prompt, _ in case.turns)
        assert first == talk.turns[0]
        assert second == f"{talk.turns[0]} {talk.expected[0]}\n{talk.turns[1]}"
        assert case.reference == tuple(f" {answer}" for answer in talk.expected)
        assert f"Turn 1: {talk.expected[0]}\n\nTurn 2: {talk.expected[1]}" in question(case, True)
    table = {row["metric"]: row for row in rows("t", task.protocol(), items, task.metrics(), items)}
    assert next(iter(table)) == "both_right"
    assert table["both_right"]["value"] == 1.0
    assert table["agree_exact"]["value"] == table["rouge_l"]["value"] == 1.0
    assert table["agree_exact"]["state"] == "measured"
    assert table["answer_ppl"]["kind"] == "exp"


def test_a_broken_model_is_wrong_in_both_turns(nano, tmp_path):
    task = NanoInstructions("nano_instruct", limit=4)
    task.remember(*nano, tmp_path)
    broken = AutoModelForCausalLM.from_pretrained(NANO / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in broken.parameters():
            weight.zero_()
    items = list(task.beside(broken, nano[1], tmp_path))
    score = {(i.metric, i.id): i.score for i in items}
    assert {score[m, i.id] for i in items for m in ("both_right", "turn_1", "turn_2")} == {0.0}
    ppl = [math.exp(i.score) for i in items if i.metric == "answer_ppl"]
    assert ppl == pytest.approx([len(nano[1])] * 4)  # every token is as likely as any other


@pytest.mark.parametrize("bucket", ["summ_s", "summ_m", "summ_l"])
def test_dense_is_good_at_every_length(nano, tmp_path, bucket):
    task = NanoSummaries("x", data=bucket, limit=4)
    items = [i for i in task.run(*nano) if i.metric == "covered"]
    assert sum(i.score for i in items) / len(items) >= 0.8
    assert all(i.extra["prompt_tokens"] >= 64 for i in items)


def test_the_guard_counts_what_does_not_fit(nano, tmp_path):
    """A budget that leaves room for some of the prompts, and one that leaves none."""
    talks = NanoSummaries("x", data="summ_l", limit=6).talks
    lengths = sorted(len(prompt_ids(nano[1], list(t.turns), "raw")) for t in talks)
    decode = Decode(max_new_tokens=512 - lengths[2], stop=["\n"])
    task = NanoSummaries("x", data="summ_l", limit=6, decode=decode)
    fit = sum(length <= lengths[2] for length in lengths)
    assert 3 <= fit < 6
    (row, *_) = rows("x", "p", list(task.run(*nano)), task.metrics(), None)
    assert row["n"] == fit
    assert row["coverage"] == pytest.approx(fit / 6)
    assert row["flags"] == {"too_long": 6 - fit}
    none = NanoSummaries("x", data="summ_l", limit=2, decode=Decode(max_new_tokens=512))
    refused(lambda: list(none.run(*nano)), "none of 2 items fits", "max_new_tokens=512")


def test_the_protocol_follows_questions_decoding_and_judge():
    task = NanoSummaries("x", limit=3)
    others = [
        NanoSummaries("x", limit=4),
        NanoSummaries("x", limit=3, decode=Decode(max_new_tokens=41, stop=["\n"])),
        NanoSummaries("x", limit=3, judge=Recorder()),
        NanoSummaries("x", limit=3, data="summ_m"),
    ]
    assert task.protocol() == NanoSummaries("y", limit=3, batch=2).protocol()
    assert len({task.protocol(), *(other.protocol() for other in others)}) == 5


def case(answer="", **more):
    return Case("a", "chat", "q", ("the quick brown fox",), (answer,), **more)


def test_proxies_by_hand():
    assert f1(["a", "b", "b", "c"], ["b", "b", "d"]) == pytest.approx(2 * 2 / 7)
    assert f1([], []) == 1.0
    assert f1([], ["a"]) == 0.0
    assert repetition(["a", "b", "c", "d", "a", "b", "c", "d"]) == pytest.approx(1 - 4 / 5)
    assert repetition(["a"]) == 0.0
    assert covered(["New York", "1920"], "born in new york, not 19201.") == 0.5
    assert covered(["York"], "") == 0.0
    assert rouge_l("the cat sat on the mat", "the cat on a mat") == pytest.approx(8 / 11)
    assert rouge_l("the cat", "") == 0.0
    found = told(case("The quick, brown FOX!", ids=(1, 2, 1, 2)))
    assert found == {
        "agree_f1": 1.0, "agree_exact": 1.0, "repetition": 0.0,
        "distinct": 2.0, "distinct_2": 2 / 3, "length": 4.0,
    }  # fmt: skip
    assert told(case())["agree_f1"] == 0.0


def test_an_empty_dense_answer_has_no_perplexity(nano):
    found = {s.metric: s for s in Proxies().judge([case(turns=(((1, 2), ()),))], *nano)}
    assert found["answer_ppl"].score is None
    talks = [(((5, 6), (7, 8)), ((9,), (4,))), (((5,), ()),), (((9, 9, 9, 9), (4, 5, 6)),)]
    (loss, tokens), none, _ = answer_losses(nano[0], talks)
    assert none == (0.0, 0)
    by_hand = 0.0
    for ids, start in (([5, 6, 7, 8], 2), ([9, 4], 1)):
        logits = nano[0](torch.tensor([ids])).logits[0].log_softmax(-1)
        by_hand -= sum(float(logits[i - 1, ids[i]].detach()) for i in range(start, len(ids)))
    assert tokens == 3
    assert loss == pytest.approx(by_hand, rel=1e-5)


class Fixed(torch.nn.Module):
    """A model whose next token depends on the last one by a table of chances."""

    def __init__(self, table, size):
        super().__init__()
        self.table, self.size = table, size
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, use_cache=False):
        logits = torch.full((1, input_ids.shape[1], self.size), -1e9)
        for token, chance in self.table[int(input_ids[0, -1])].items():
            logits[0, -1, token] = math.log(chance)
        return type("Out", (), {"logits": logits})


def test_ten_begins_with_one():
    """Tokens: 1 is said with .5 and followed by 0 with .4; 2 with .3; the rest says something else."""
    model = Fixed({0: {1: 0.5, 2: 0.3, 9: 0.2}, 1: {5: 0.4, 9: 0.6}}, 10)
    found = spread(model, [0], {1: [1], 10: [1, 5], 2: [2]})
    assert found == pytest.approx({1: 0.3, 10: 0.2, 2: 0.3})


def test_a_local_judge_scores_both_orders(nano):
    judge = LocalJudge(str(NANO / "model"), mass=0.0)
    (found,) = judge.judge([case("a fox")], *nano)
    assert 1 <= found.score <= 10
    assert found.extra["judge"] == "nano"
    assert 0 < found.extra["rated_mass"] <= 1
    assert [found] == list(judge.judge([case("a fox")], *nano))
    (none,) = LocalJudge(str(NANO / "model"), mass=1.0).judge([case("a fox")], *nano)
    assert none.score is None
    assert none.extra["flags"] == ["unjudged"]
    (long,) = judge.judge([case("fox " * 600)], *nano)
    assert long.score is None


def test_ratings_have_different_tokens(nano):
    found = rating_ids(nano[1])
    assert list(found) == list(range(1, 11))
    assert len({tuple(ids) for ids in found.values()}) == 10
    assert nano[1].decode(found[10]) == " 10"


def test_a_judges_score_is_the_headline_and_missing_ones_are_counted(nano, tmp_path):
    class Half(Recorder):
        def metrics(self, kind, gold=False, facts=False):
            from tasks.kick.judge.base import rated

            return rated(kind)

        def judge(self, cases, model, tokenizer):
            for place, one in enumerate(cases):
                missing = place % 2 == 1
                yield Score(one.id, "judge_overall", None if missing else 8.0)

    task = NanoInstructions("x", limit=4, judge=Half())
    table = {row["metric"]: row for row in rows("x", "p", list(task.run(*nano)), task.metrics(), None)}
    assert list(table)[:4] == ["both_right", "turn_1", "turn_2", "judge_overall"]
    assert table["judge_overall"]["value"] == 8.0
    assert table["judge_overall"]["coverage"] == 0.5
    assert table["rouge_l"]["coverage"] == 1.0


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
    assert len(Instructions("i", path=path).talks) == 80


@real
def test_single_turn_questions_are_refused_where_two_are_asked():
    path = str(REAL / "llm_kick" / "vicuna_bench_questions.jsonl")
    refused(lambda: Instructions("i", path=path).talks, "question 1", "1 of 2 turns")
    assert len(Instructions("i", path=path, turns=1).talks) == 80


def test_a_judge_with_a_chat_template_is_asked_through_it(nano, tmp_path):
    for file in (NANO / "model").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}<<{{ m.content }}>>{% endfor %}\n")
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.config = model, model.config

        def forward(self, input_ids, use_cache=False):
            seen.append(nano[1].decode(input_ids[0].tolist()))
            return self.model(input_ids=input_ids, use_cache=use_cache)

    judge = LocalJudge(str(tmp_path), mass=0.0)
    found = judge._score(Spy(nano[0]), judge.spec.tokenizer(), case("a fox"), "overall")
    assert 1 <= found.score <= 10
    assert all(text.startswith("<<The input is") and text.count(">>") == 1 for text in seen)
    asked = [text for text in seen if text.endswith("1 to 10:")]
    assert [("answer 2" in text.split(">>")[1]) for text in asked] == [True, False]


@pytest.mark.parametrize("stop", [5, None])
def test_stop_strings_are_a_list(stop):
    refused(lambda: Decode(stop=stop), f"stop={stop!r} is no list of texts")


@pytest.mark.parametrize(("field", "value"), [("path", ""), ("mass", 2), ("device", "gpuu")])
def test_a_local_judge_that_can_not_be_is_refused_before_anything_runs(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}.*valid:"):
        LocalJudge(**{"path": "x", field: value})


@pytest.mark.parametrize("broken", ["{", None])
def test_answers_of_the_parent_that_are_damaged_or_gone_are_no_missing_references(nano, tmp_path, broken):
    task = NanoInstructions(name="nano_instruct", limit=1)
    if broken is not None:
        (tmp_path / "answers.json").write_text(broken)
    with pytest.raises(ValueError, match=r"answers\.json is damaged .* delete "):
        list(task.beside(*nano, tmp_path))
