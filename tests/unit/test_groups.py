"""Whole groups kept or not: what they cost, how many fit, and a draft that is what it will be stored as."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from term_cases import all_bits, groups, normal, quick, seeds, sides

from crunchmark.budget import Room, Unreachable
from crunchmark.drafts import GroupDraft
from crunchmark.terms import Groups, unpack

group_sizes = st.sampled_from([1, 3, 8, 16])


@quick
@given(sides, sides, seeds, st.floats(0, 2), all_bits, group_sizes)
def test_kept_groups_are_rounded_and_the_others_zero(out, wide, seed, share, bits, group):
    term, want = groups(normal(seed, out, wide), share, bits, group)
    assert torch.equal(term.dense(), want)
    kept, whole = int(term.kept().sum()), out * math.ceil(wide / group)
    bitmap = out * math.ceil(math.ceil(wide / group) / 8)
    assert term.nbytes() == bitmap + math.ceil(kept * group * bits / 8) + 2 * kept + math.ceil(
        kept * bits / 8
    )
    assert term.nbytes() == Groups.size((out, wide), bits, group, kept)
    assert term.nominal() == kept / whole * bits / 16


@pytest.mark.parametrize(
    ("bits", "group", "share", "want"),
    [(4, 16, 0.5, 2.6875), (4, 64, 0.5, 0.5 * 4.3125 + 1 / 64), (3, 16, 0.25, 0.25 * (3 + 19 / 16) + 1 / 16)],
)
def test_bits_per_weight_of_packed_bytes(bits, group, share, want):
    """(1 - p)(b + (16 + b) / g) + 1 / g."""
    w = normal(0, 64, 1024)
    kept = int(share * 64 * 1024 / group)
    mask = torch.arange(64 * 1024 // group).view(64, -1) % round(1 / share) == 0
    term = GroupDraft(w, mask, bits, group).term()
    assert int(mask.sum()) == kept
    packed = sum(t.numel() * t.element_size() for t in term.pack()[0].values())
    assert packed * 8 / w.numel() == want


@quick
@given(sides, sides, st.integers(0, 4000), group_sizes, st.sampled_from([None, 2, 4, 8]))
def test_as_many_groups_fit_as_can(out, wide, nbytes, group, bits):
    shape, room, group = (out, wide), Room(nbytes), min(group, wide)
    whole, least = out * math.ceil(wide / group), Groups.size(shape, bits or 4, group, out)
    if nbytes < least:
        with pytest.raises(Unreachable) as caught:
            Groups.fits(shape, room, "x", group, bits)
        assert caught.value.needs == least == Groups.least(shape, room, group, bits)
        return
    depth, kept = Groups.fits(shape, room, "x", group, bits)
    assert Groups.size(shape, depth, group, kept) <= nbytes
    assert kept == whole or Groups.size(shape, depth, group, kept + 1) > nbytes
    full = [b for b in range(4, 9) if Groups.size(shape, b, group, whole) <= nbytes]
    assert depth == (bits or max(full, default=4))


@quick
@given(sides, sides, st.floats(0.01, 1), group_sizes, st.sampled_from([None, 2, 4, 8]))
def test_nominal_counts_groups_and_bits(out, wide, share, group, bits):
    shape, room, group = (out, wide), Room(0, share), min(group, wide)
    whole = out * math.ceil(wide / group)
    least = out / whole * (bits or 4) / 16
    if share < least - 1e-9:
        with pytest.raises(Unreachable) as caught:
            Groups.fits(shape, room, "x", group, bits)
        assert caught.value.least == pytest.approx(least)
        return
    depth, kept = Groups.fits(shape, room, "x", group, bits)
    assert kept / whole * depth / 16 <= share + 1e-9
    assert kept == whole or (kept + 1) / whole * depth / 16 > share - 1e-9


def test_what_does_not_go_is_refused():
    term, _ = groups(normal(1, 6, 32), 0.8, 4, 8)
    tensors, meta = term.pack()
    with pytest.raises(ValueError, match=r"'mask' keeps 24 groups; expected \d+"):
        unpack(tensors | {"mask": torch.full_like(tensors["mask"], 15)}, meta)
    with pytest.raises(ValueError, match="bits=9 is out of range; valid: 2 to 8"):
        unpack(tensors, meta | {"bits": 9})
    with pytest.raises(
        ValueError, match=r"method.group=64 is out of range for in_features=32 of up; valid: 1 to 32"
    ):
        Groups.fits((6, 32), Room(999), "up", 64)
    with pytest.raises(ValueError, match="bits=1 is out of range"):
        Groups.fits((6, 32), Room(999), "up", 8, 1)
    assert term.setting == "4 bit, groups of 8"


@quick
@given(sides, sides, seeds, all_bits, group_sizes)
def test_a_draft_is_what_it_will_be_stored_as(out, wide, seed, bits, group):
    """While it trains, once it is frozen, and after its grid has moved."""
    w, mask = normal(seed, out, wide), normal(seed + 1, out, math.ceil(wide / group)) > 0
    draft = GroupDraft(w, mask, bits, group)
    assert torch.equal(draft(), draft.term().dense())
    with torch.no_grad():
        for p in draft.parameters():
            p.add_(normal(seed + 2, *p.shape), alpha=0.1)
    assert torch.equal(draft(), draft.term().dense())
    codes = draft.freeze().codes.clone()
    assert torch.equal(draft(), draft.term().dense())
    with torch.no_grad():
        draft.scale.mul_(1.3)
        draft.zero.add_(1)
    assert torch.equal(draft(), draft.term().dense())
    assert torch.equal(draft.codes, codes)


def test_gradients_go_straight_through():
    w = normal(3, 4, 32)
    draft = GroupDraft(w, torch.ones(4, 4, dtype=torch.bool), 8, 8)
    draft().sum().backward()
    inside = (draft.weight.grad == 1).float().mean()
    assert float(inside) > 0.9  # those at the ends may be clamped
    assert draft.scale.grad.abs().max() < 8 * 0.51 + 1e-3 + 128  # the rest of a rounding, or an end
    frozen = draft.freeze()
    for p in frozen.parameters():
        p.grad = None
    frozen().sum().backward()
    steps = frozen.codes.float() - frozen.stored()[1].float()[:, None]
    torch.testing.assert_close(frozen.scale.grad, steps.sum(1))
    torch.testing.assert_close(frozen.zero.grad, -8 * frozen.stored()[0].float())
    assert frozen.weight.grad is None
