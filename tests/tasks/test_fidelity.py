"""Divergences against closed forms, and the task on every family."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from crunchmark.evaluate import rows
from tasks import hidden, memory
from tasks.fidelity import Fidelity
from tasks.memory import Notes, coarse, divergences, kept, rounded


class Letters:
    """A token per byte of the text, within the tiny vocabulary."""

    bos_token_id = None

    def __call__(self, text, **_):
        return {"input_ids": [3 + ord(c) % 61 for c in text]}


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("A boat waited near the narrow clock; nobody had seen it leave. " * 2)
    return Fidelity(path=str(path), window=16, batch=3)


def scores(items, metric):
    return [i.score for i in items if i.metric == metric]


def test_by_hand():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.25, 0.5]])
    found = divergences(p.log(), q.log())
    assert float(found["kl"]) == pytest.approx(0.25 * math.log(2))
    assert float(found["reverse_kl"]) == pytest.approx(0.25 * math.log(2))
    middle = (0.5 * math.log(0.5 / 0.375) + 0.25 * math.log(0.25 / 0.375)) / 1
    assert float(found["js"]) == pytest.approx(middle, rel=1e-5)


def test_zero_probabilities():
    p, q = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[1.0, 0.0, 0.0]]).log()
    found = divergences(p, q)
    assert float(found["kl"]) == math.inf  # q excludes what p says
    assert float(found["reverse_kl"]) == pytest.approx(math.log(2))
    assert 0 < float(found["js"]) < math.log(2)
    apart = divergences(torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]]).log())
    assert float(apart["js"]) == pytest.approx(math.log(2))


def test_a_distribution_that_is_none_stays_visible():
    p = torch.log_softmax(torch.randn(2, 5), 1)
    found = divergences(p, torch.full((2, 5), math.nan))
    assert all(value.isnan().all() for value in found.values())


def test_rounding_keeps_zero_and_makes_none():
    logp = torch.tensor([-math.inf, -1e6, -1.0, math.nan])
    found = rounded(logp)
    assert found[0] == -math.inf
    assert math.isfinite(float(found[1]))
    assert found[3].isnan()


@pytest.mark.parametrize(("tokens", "vocabulary", "k"), [(4096, 32768, None), (4097, 32768, 10919)])
def test_what_fits_in_the_bound(tokens, vocabulary, k):
    assert kept(tokens, vocabulary, 2**28) == k
    assert tokens * (6 * (k or 0) + 2) <= 2**28


def two(seed, tokens=7, vocabulary=50):
    make = torch.Generator().manual_seed(seed)
    a = torch.randn(tokens, vocabulary, generator=make) * 3
    return a, a + torch.randn(tokens, vocabulary, generator=make), torch.arange(tokens)


@given(st.integers(0, 10_000))
def test_the_coarse_kl_and_its_bound_enclose_the_true_one(seed):
    a, b, gold = two(seed)
    true = F.kl_div(b.log_softmax(1), a.log_softmax(1), log_target=True, reduction="sum")
    with TemporaryDirectory() as folder:
        notes = Notes.create(Path(folder), 7, 50, bound=7 * (6 * 10 + 2))
        assert notes.ids.shape == (7, 10)
        notes.put(0, a, gold)
        found = notes.against(0, b, gold)
    assert found["kl"] <= float(true) * 1.001 + 1e-4
    assert found["kl_above"] >= float(true) * 0.999 - 1e-4


def test_the_coarse_distribution_sums_to_one():
    logp = two(1)[0].log_softmax(1)
    assert coarse(logp, logp.topk(4).indices).exp().sum(1).numpy() == pytest.approx(np.ones(7), rel=1e-5)
    assert coarse(logp, None) is logp


def test_pieces_change_nothing(tmp_path, monkeypatch):
    a, b, gold = two(2)
    whole = Notes.create(tmp_path, 7, 50, 2**20)
    whole.put(0, a, gold)
    before = whole.against(0, b, gold)
    monkeypatch.setattr(memory, "PIECE", 100)  # two positions at a time
    small = Notes.create(tmp_path, 7, 50, 2**20)
    small.put(0, a, gold)
    again = Notes.load(tmp_path).against(0, b, gold)
    assert again == pytest.approx(before, rel=1e-6)
    added = sum(sign * F.cross_entropy(x, gold, reduction="sum") for sign, x in ((1, b), (-1, a)))
    assert again["loss_added"] == pytest.approx(float(added), rel=1e-4)


def test_every_family_is_equal_to_itself_and_not_to_another(task, tiny, family, tmp_path):
    dense, other, tokenizer = tiny(family), tiny(family), Letters()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.9)
    task.remember(dense, tokenizer, tmp_path)
    same, moved = (list(task.beside(m, tokenizer, tmp_path)) for m in (dense, other))
    assert len(scores(same, "kl")) == 8
    for metric in ("kl", "reverse_kl", "js", "loss_added"):
        assert set(scores(same, metric)) == {0.0}
    assert set(scores(same, "agreement")) == {1.0}
    assert min(scores(moved, "kl")) > 0
    assert all(s is not None for m in hidden.NAMES for s in scores(moved, m)[:-1])
    assert [(i.id, i.metric, i.score) for i in task.run(dense, tokenizer)] == [
        (i.id, i.metric, i.score) for i in same
    ]


def test_weights_are_predicted_tokens_and_the_windows_average_to_the_text(task, tiny, tmp_path):
    dense, other = tiny("llama"), tiny("llama_gqa")
    task.remember(dense, Letters(), tmp_path)
    items = [i for i in task.beside(other, Letters(), tmp_path) if i.metric == "kl"]
    assert [i.weight for i in items] == [15] * 7 + [13]
    ids = task.ids(Letters())[:16][None]
    with torch.no_grad():
        a, b = (m(ids).logits[0, :-1].log_softmax(1) for m in (dense, other))
    true = F.kl_div(b, a, log_target=True, reduction="sum") / 15
    assert items[0].score == pytest.approx(float(true), rel=2e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_model_is_infinitely_far_and_told(task, tiny, tmp_path, value):
    dense, broken = tiny("llama"), tiny("llama")
    with torch.no_grad():
        broken.lm_head.weight[5] = value
    task.remember(dense, Letters(), tmp_path)
    ours, theirs = (list(task.beside(m, Letters(), tmp_path)) for m in (broken, dense))
    found = {r["metric"]: r for r in rows("fidelity", task.protocol(), ours, task.metrics(), theirs)}
    assert (found["kl"]["value"], found["kl"]["dense"]) == (math.inf, 0)
    assert found["kl"]["flags"] == {"not_finite": 8}
    assert found["agreement"]["value"] == 0
    assert {r["state"] for r in found.values()} == {"measured"}


def test_states_that_are_no_numbers_have_no_score(task, tiny, tmp_path):
    broken = tiny("llama")
    with torch.no_grad():
        broken.model.norm.weight[0] = math.nan
    task.remember(tiny("llama"), Letters(), tmp_path)
    items = list(task.beside(broken, Letters(), tmp_path))
    found = {r["metric"]: r for r in rows("fidelity", "p", items, task.metrics(), None)}
    assert (found["coding_rate"]["value"], found["coding_rate"]["coverage"]) == (None, 0)
    assert found["coding_rate"]["flags"] == {"no_states": 8, "not_finite": 8}


def test_only_the_likeliest_are_kept_where_the_bound_is_small(task, tiny, tmp_path):
    dense, other = tiny("llama"), tiny("llama_gqa")
    (tmp_path / "all").mkdir()
    task.remember(dense, Letters(), tmp_path / "all")
    exact = scores(task.beside(other, Letters(), tmp_path / "all"), "kl")
    task.bound = 118 * 50  # below what check_items would let a user ask for
    task.remember(dense, Letters(), tmp_path)
    items = [i for i in task.beside(other, Letters(), tmp_path) if i.metric == "kl"]
    assert all(i.extra["flags"] == ["lower_bound"] and i.extra["kept"] == 8 for i in items)
    for item, true in zip(items, exact, strict=True):
        assert item.score <= true * 1.01
        assert item.extra["kl_above"] >= true * 0.99
    assert set(scores(task.beside(dense, Letters(), tmp_path), "kl")) == {0.0}


def test_what_decides_the_numbers_is_in_the_id(task):
    ids = [task.protocol()]
    for field, value in (("window", 8), ("precision", 0.1), ("bound", 2**22), ("limit", 3), ("bos", True)):
        ids.append(Fidelity(**{"path": task.path, "window": 16, field: value}).protocol())
    assert len(set(ids)) == 6
    assert "b268435456" in ids[0]


@pytest.mark.parametrize(
    ("field", "value"), [("bound", 10), ("precision", 0), ("window", 1), ("precision", "x"), ("bos", "no")]
)
def test_settings_that_can_not_be(task, field, value):
    with pytest.raises(ValueError, match=f"fidelity.{field}={value!r}"):
        Fidelity(**{"path": task.path, field: value})


def test_a_window_beyond_the_context(task, tiny, tmp_path):
    task.window = 65
    with pytest.raises(ValueError, match="window=65 > the model's context"):
        task.remember(tiny("llama"), Letters(), tmp_path)


def states(n=40, d=12, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_entropy_of_directions_that_are_equally_strong():
    plus_minus = torch.cat([torch.eye(5), -torch.eye(5)]).double()  # centred, five directions
    wide = torch.cat([plus_minus, torch.zeros(10, 4).double()], 1)
    assert hidden.matrix_entropy(wide) == pytest.approx(math.log(5))
    line = torch.linspace(-1, 1, 10).double()[:, None] * torch.ones(1, 3).double()
    assert hidden.matrix_entropy(line) == pytest.approx(0, abs=1e-9)


def test_entropy_and_rate_from_either_gram_matrix():
    tall = states()
    z = hidden.rows_on_sphere(tall, centred=True)
    values = torch.linalg.svdvals(z) ** 2 / len(z)
    assert hidden.matrix_entropy(tall) == pytest.approx(-float((values * values.log()).sum()))
    wide = states(9, 30)
    z = hidden.rows_on_sphere(wide, centred=False)
    direct = torch.logdet(torch.eye(30).double() + 30 / (9 * 0.25) * z.T @ z) / 2
    assert hidden.coding_rate(wide, 0.5) == pytest.approx(float(direct))


def test_rate_of_orthonormal_rows():
    rows = torch.eye(8).double()
    assert hidden.coding_rate(rows, 0.5) == pytest.approx(8 / 2 * math.log(1 + 8 / (8 * 0.25)))


def test_nuclear_norm_by_hand():
    plus_minus = torch.cat([torch.eye(5), -torch.eye(5)]).double()
    assert hidden.matrix_nuclear_norm(plus_minus) == pytest.approx(5 * math.sqrt(2) / 10)
    z = hidden.rows_on_sphere(states(), centred=True)
    assert hidden.matrix_nuclear_norm(states()) * 40 >= float(torch.linalg.svdvals(z).sum())


def test_what_leaves_the_measures_as_they_are():
    r, turn = states(), torch.linalg.qr(states(12, 12, seed=1)).Q
    assert hidden.measures(7 * r, 0.5) == pytest.approx(hidden.measures(r, 0.5))
    for measure in (hidden.matrix_nuclear_norm, hidden.matrix_entropy):
        assert measure(r + 3) == pytest.approx(measure(r))
    assert hidden.matrix_entropy(r @ turn) == pytest.approx(hidden.matrix_entropy(r))
    assert hidden.coding_rate(r @ turn, 0.5) == pytest.approx(hidden.coding_rate(r, 0.5))


def test_the_nuclear_norm_depends_on_the_basis():
    """Its known weakness: rotating all states alike moves it, though nothing is lost."""
    lean = states() * torch.tensor([10.0, *[0.1] * 11])
    turn = torch.linalg.qr(states(12, 12, seed=1)).Q
    assert abs(hidden.matrix_nuclear_norm(lean @ turn) - hidden.matrix_nuclear_norm(lean)) > 0.1


@given(st.integers(8, 40), st.integers(2, 40), st.integers(0, 1000))
def test_the_share_is_a_share(n, d, seed):
    found = hidden.measures(states(n, d, seed), 0.5)
    assert 0 < found["nuclear_norm_share"] <= 1 + 1e-9
    assert 0 <= found["matrix_entropy"] <= math.log(min(n, d)) + 1e-9


def test_equal_or_few_states_say_nothing():
    assert hidden.matrix_nuclear_norm(torch.ones(10, 4)) == 0
    assert hidden.matrix_entropy(torch.ones(10, 4)) == 0
    assert hidden.measures(states(7), 0.5) == dict.fromkeys(hidden.NAMES)


@pytest.mark.parametrize("broken", [b"", None])
def test_damaged_notes_name_the_folder_to_delete(tmp_path, broken):
    Notes.create(tmp_path, 4, 8, 2**20)
    path = tmp_path / "logp.npy"
    path.unlink() if broken is None else path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"logp\.npy is damaged .* delete "):
        Notes.load(tmp_path)
