"""Whole groups kept or not: how many fit, and a draft that is what it will be stored as."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from term_cases import all_bits, normal, quick, seeds, sides

from crunchmark.budget import Room, Unreachable
from crunchmark.groups import GroupDraft, groups_that_fit, least_groups
from crunchmark.rounding import grid, round_to, value_of

group_sizes = st.sampled_from([1, 3, 8, 16])
some = st.integers(1, 6)  # groups of a row


def draft_of(seed, out, count, group, bits):
    w, mask = normal(seed, out, count * group), normal(seed + 1, out, count) > 0
    return w, GroupDraft(w, mask, bits, group)


def size(out, count, group, bits, kept):
    """Bytes of bitmap, codes, scales and zeros."""
    return out * -(-count // 8) + -(-kept * group * bits // 8) + 2 * kept + -(-kept * bits // 8)


@quick
@given(sides, some, seeds, all_bits, group_sizes)
def test_kept_groups_are_rounded_and_the_others_zero(out, count, seed, bits, group):
    w, draft = draft_of(seed, out, count, group, bits)
    want, parts = torch.zeros(out, count, group), w.view(out, count, group)
    for at in draft.mask.nonzero().tolist():
        own = parts[*at]
        scale, zero = grid(own, bits, sym=False)
        want[*at] = value_of(round_to(own, scale, zero, bits), scale, zero)
    term, kept = draft.term(), int(draft.mask.sum())
    assert torch.equal(term.dense(), want.view(out, -1))
    assert torch.equal(term.mask().view(out, count, group).any(-1), draft.mask)
    assert term.nbytes() == size(out, count, group, bits, kept)
    assert term.nominal() == pytest.approx(kept / (out * count) * bits / 16)


@pytest.mark.parametrize(
    ("bits", "group", "share", "want"),
    [(4, 16, 0.5, 2.6875), (4, 64, 0.5, 0.5 * 4.3125 + 1 / 64), (3, 16, 0.25, 0.25 * (3 + 19 / 16) + 1 / 16)],
)
def test_bits_per_weight_of_packed_bytes(bits, group, share, want):
    """(1 - p)(b + (16 + b) / g) + 1 / g."""
    w = normal(0, 64, 1024)
    mask = torch.arange(64 * 1024 // group).view(64, -1) % round(1 / share) == 0
    assert float(mask.float().mean()) == share
    packed = sum(
        t.numel() * t.element_size() for t in GroupDraft(w, mask, bits, group).term().pack()[0].values()
    )
    assert packed * 8 / w.numel() == want


@quick
@given(sides, some, st.integers(0, 4000), group_sizes, st.sampled_from([None, 2, 4, 8]))
def test_as_many_groups_fit_as_can(out, count, nbytes, group, bits):
    shape, room = (out, count * group), Room(nbytes)
    whole, least = out * count, size(out, count, group, bits or 4, out)
    assert least_groups(shape, room, group, bits) == least
    if nbytes < least:
        with pytest.raises(Unreachable) as caught:
            groups_that_fit(shape, room, "x", group, bits)
        assert caught.value.needs == least
        return
    depth, kept = groups_that_fit(shape, room, "x", group, bits)
    assert out <= kept <= whole
    assert size(out, count, group, depth, kept) <= nbytes
    assert kept == whole or size(out, count, group, depth, kept + 1) > nbytes
    full = [b for b in range(4, 9) if size(out, count, group, b, whole) <= nbytes]
    assert depth == (bits or max(full, default=4))


@quick
@given(sides, some, st.floats(0.01, 1), group_sizes, st.sampled_from([None, 2, 4, 8]))
def test_nominal_counts_groups_and_bits(out, count, share, group, bits):
    shape, room, whole = (out, count * group), Room(0, share), out * count
    least = (bits or 4) / 16 / count
    dense = 2 * out * count * group
    assert 0 <= least_groups(shape, room, group, bits) - least * dense < 1
    if share < least - 1e-9:
        with pytest.raises(Unreachable) as caught:
            groups_that_fit(shape, room, "x", group, bits)
        assert caught.value.least == pytest.approx(least)
        return
    depth, kept = groups_that_fit(shape, room, "x", group, bits)
    assert kept / whole * depth / 16 <= share + 1e-9
    assert kept == whole or (kept + 1) / whole * depth / 16 > share - 1e-9


def test_groups_that_do_not_fill_a_row_are_refused():
    with pytest.raises(
        ValueError, match=r"method.group=64 does not divide in_features=32 of up; valid: 1, 2, 4, 8, 16, 32$"
    ):
        groups_that_fit((6, 32), Room(999), "up", 64)


@pytest.mark.slow
@quick
@given(sides, some, seeds, all_bits, group_sizes)
def test_a_draft_is_what_it_will_be_stored_as(out, count, seed, bits, group):
    """While it trains, once it is frozen, and after its grid has moved."""
    _, draft = draft_of(seed, out, count, group, bits)
    assert torch.equal(draft(), draft.term().dense())
    with torch.no_grad():
        for p in draft.parameters():
            p.add_(normal(seed + 2, *p.shape), alpha=0.1)
    assert torch.equal(draft(), draft.term().dense())
    draft.freeze()
    codes = draft.codes.clone()
    assert torch.equal(draft(), draft.term().dense())
    with torch.no_grad():
        draft.scale.mul_(1.3)
        draft.zero.add_(1)
    draft.freeze()  # again changes nothing
    assert torch.equal(draft(), draft.term().dense())
    assert torch.equal(draft.codes, codes)


def test_gradients_go_straight_through():
    draft = GroupDraft(normal(3, 4, 32), torch.ones(4, 4, dtype=torch.bool), 8, 8)
    draft().sum().backward()
    assert float((draft.weight.grad == 1).float().mean()) > 0.9  # those at the ends may be clamped
    draft.freeze()
    for p in draft.parameters():
        p.grad = None
    draft().sum().backward()
    steps = draft.codes.float() - draft.stored()[1].float()[:, None]
    torch.testing.assert_close(draft.scale.grad, steps.sum(1))
    torch.testing.assert_close(draft.zero.grad, -8 * draft.stored()[0].float())
    assert draft.weight.grad is None


@pytest.mark.parametrize("frozen", [False, True])
def test_the_one_node_is_what_single_operations_give(frozen):
    """A value off the grid's ends, a zero that is no whole number, groups that are gone."""
    draft = GroupDraft(normal(4, 6, 32), normal(5, 6, 4) > -0.5, 3, 8)
    with torch.no_grad():
        draft.weight.mul_(1.5)
        draft.zero.add_(0.3)
    if frozen:
        draft.freeze()
    soft = [p.detach().clone().requires_grad_() for p in (draft.weight, draft.scale, draft.zero)]

    def through(a, hard):
        return a + (hard.float() - a).detach()

    weight, (scale, zero) = (
        soft[0],
        (through(*pair)[:, None] for pair in zip(soft[1:], draft.stored(), strict=True)),
    )
    codes = draft.codes
    if not frozen:
        codes = (through(weight / scale, (weight / scale).round()) + zero).clamp(0, 7)
    laid = torch.zeros(6, 4, 8)
    laid[draft.mask] = (codes - zero) * scale
    slope = normal(6, 6, 32)
    want = torch.autograd.grad((laid.flatten(1) * slope).sum(), soft, allow_unused=True)
    torch.testing.assert_close(draft(), laid.flatten(1))
    (draft() * slope).sum().backward()
    for p, grad in zip((draft.weight, draft.scale, draft.zero), want, strict=True):
        assert p.grad is None if grad is None else torch.allclose(p.grad, grad, rtol=1e-4, atol=1e-5)
    assert (draft.weight.grad is None) == frozen
