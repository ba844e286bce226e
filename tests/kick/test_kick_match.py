"""Matchers: what counts as right, and what the released code took for right."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.kick import match, score

WORD = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8).filter(
    lambda word: word not in ("a", "an", "the")
)
WORDS = st.lists(WORD, min_size=1, max_size=5)
NOTHING = ["", " ", ".", "The", "a", "?!", "the a an", "_"]


@pytest.mark.parametrize("said", NOTHING)
def test_nothing_said_scores_zero_where_the_released_rule_calls_it_right(said):
    aliases = ["san marino", "the hague"]
    assert match.equal(said, aliases) == match.contains(said, aliases) == match.f1(said, aliases) == 0.0
    assert match.code_icra(said, aliases) == 1.0


def test_an_alias_of_nothing_but_an_article_matches_nothing():
    assert match.equal("The", ["The"]) == match.contains("anything", ["The", "."]) == 0.0


@given(WORDS, st.sampled_from(["the", "a", "an", ""]), st.sampled_from(["", ".", "!", " "]))
def test_matching_does_not_see_case_articles_and_punctuation(words, article, end):
    alias = " ".join(words)
    said = f"{article} {alias.upper()}{end}"
    assert match.equal(said, [alias]) == match.contains(said, [alias]) == 1.0
    assert match.f1(said, [alias]) == pytest.approx(1.0)


@given(WORDS, WORDS, WORDS)
def test_containment_is_of_whole_words_in_a_row_and_one_way(before, gold, after):
    alias = " ".join(gold)
    assert match.contains(" ".join([*before, *gold, *after]), [alias]) == 1.0
    glued = "x".join([" ".join(before), alias, " ".join(after)])
    runs = [glued.split()[i : i + len(gold)] for i in range(len(glued.split()))]
    assert match.contains(glued, [alias]) == float(gold in runs)
    longer = " ".join([*gold, "zzzzzzzzz"])
    assert match.contains(alias, [longer]) == 0.0


def test_short_aliases_do_not_match_inside_words_but_did():
    assert match.contains("a continental breakfast", ["tin"]) == 0.0
    assert match.code_factoid("a continental breakfast", ["tin"]) == 1.0
    assert match.code_factoid("no tea", ["not"]) == 1.0  # spaces deleted: "notea"
    assert match.contains("no tea", ["not"]) == 0.0


def test_a_guess_of_several_is_no_exact_match_and_loses_f1():
    said, gold = "Rome or Paris or Oslo", ["paris"]
    assert match.equal(said, gold) == 0.0
    assert match.contains(said, gold) == match.code_icra(said, gold) == 1.0
    assert match.f1(said, gold) == pytest.approx(2 * (1 / 5) / (1 / 5 + 1))


def test_the_best_alias_counts():
    assert match.equal("J. Tamsin", ["jory tamsin", "j tamsin"]) == 1.0
    assert match.f1("jory", ["lanyon", "jory tamsin"]) == pytest.approx(2 / 3)
    assert match.f1("jory", []) == match.equal("jory", []) == 0.0


def test_normal_form_by_hand():
    assert match.normal("  The_Queen’s  (an) `Arms´, a PUB ") == "queen s arms pub"
    assert match.normal("theatre another apple") == "theatre another apple"


@pytest.mark.parametrize(
    ("said", "named"),
    [("B", "B"), (" (B)", "B"), ("[C]", "C"), ("B. Paris", "B"), ("D\n", "D"), ("A: x", "A"),
     ("A man", None), ("Bob", None), ("b", None), ("", None), ("E", None), ("The answer is B", None)],
)  # fmt: skip
def test_which_letter_a_free_answer_names(said, named):
    assert match.letter(said) == named


def test_the_prompt_is_scored_only_where_the_released_code_is_meant():
    doc = {"prompt": "Who is Tamsin? The answer is ", "aliases": ["Tamsin"], "answer": 1}
    assert score.code_factoid(doc, [""])["exact_match"] == 1.0
    assert score.answer(doc, [""]) == {"exact_match": 0.0, "contains": 0.0, "f1": 0.0}


def test_letters_are_told_apart_from_their_format():
    doc = {"answer": 1}
    likely = [(-3.0, False), (-1.0, True), (-2.0, False), (-4.0, False)]
    assert score.letters(doc, [*likely, "banana"]) == {"acc": 1.0, "format_valid": 0.0}
    assert score.letters(doc, [*likely, "C"]) == {"acc": 1.0, "format_valid": 1.0}
    assert score.paper_letter(doc, ["B. x"]) == {"acc": 1.0, "format_valid": 1.0}
    assert score.paper_letter(doc, ["x"]) == {"acc": 0.0, "format_valid": 0.0}
    assert [score.code_letter(doc, [said])["acc"] for said in (" B", "B.", "")] == [1.0, 0.0, 0.0]


def test_the_released_rule_reads_the_first_line():
    doc = {"aliases": ["rye bread"]}
    assert score.code_icra(doc, ["\n rye \nno"]) == {"exact_match": 1.0, "f1": pytest.approx(2 / 3)}
    assert score.code_icra(doc, ["water\nrye bread"]) == {"exact_match": 0.0, "f1": 0.0}
