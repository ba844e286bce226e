"""Bits asked for directly: the room is what they must fit, not what they follow from."""

import pytest
from method_recipe import keep, layer

from crunchmark.budget import Room, Unreachable
from methods.awq import AWQ
from methods.gptq import GPTQ
from methods.hqq import HQQ
from methods.rtn import RTN

KINDS = [RTN, GPTQ, HQQ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", [None, 64, -1])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_as_many_bits_as_were_asked_for(kind, group, bits):
    """However much more room there is; without them the same room takes the most that fit."""
    of, method = layer(20), kind(bits=bits, group=group)
    term = method.compress(of, Room(2 * of.weight.numel() - 1))
    assert (term.bits, term.group) == (bits, 32 if group is None else group)
    assert kind(group=group).compress(of, Room(term.nbytes())).nbytes() == term.nbytes()
    sizes = method.sizes(of.shape, Room(0))
    assert sizes[-1] == term.nbytes()
    with pytest.raises(Unreachable) as caught:
        method.compress(of, Room(sizes[0] - 1))
    assert caught.value.needs == sizes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_in_nominal_accounting_bits_are_their_share(kind):
    of, method = layer(21), kind(bits=3, group=32)
    assert method.compress(of, keep(0.5)).nominal() == 3 / 16
    assert method.sizes(of.shape, keep(0.5)) == [of.weight.numel() * 3 // 8]
    with pytest.raises(Unreachable) as caught:
        method.compress(of, keep(2 / 16))
    assert caught.value.least == 3 / 16


@pytest.mark.parametrize("kind", [*KINDS, AWQ])
@pytest.mark.parametrize("bits", [0, 1, 9, 4.5, "four"])
def test_bits_out_of_range(kind, bits):
    with pytest.raises(ValueError, match=rf"method.bits={bits!r} is unknown; valid: null, 2, 3, 4,"):
        kind(bits=bits)
