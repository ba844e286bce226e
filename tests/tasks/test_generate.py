"""Answers are generated alike in a batch and alone, and by the task's settings only."""

import json

import pytest
import torch
from refusals import refused
from transformers import AutoTokenizer

from crunchmark.machine import ROOT
from tasks.kick.generate import Decode, generate, prompt_ids

pytestmark = pytest.mark.slow

NANO = ROOT / "tasks" / "nano"


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


@pytest.mark.parametrize("stop", [5, None])
def test_stop_strings_are_a_list(stop):
    refused(lambda: Decode(stop=stop), f"stop={stop!r} is no list of texts")
