"""Exact bit packing, and the stable ranking that decides what is kept."""

import math
from functools import cache

import torch
from torch import Tensor

WIDEST = 2**16  # inputs that 16 bits can name


def packed_width(count: int, bits: int) -> int:
    """Bytes of a row of `count` codes of `bits` bits, padded to whole bytes."""
    return -(-count * bits // 8)


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Pack codes into one little-endian bitstream per row, with no bit lost between codes.

    Code i of a row occupies bits [i * bits, (i + 1) * bits) of that row's stream.

    Args:
        codes: (N, K) uint8, each below 2**bits.
        bits: 1 to 8.

    Returns:
        (N, ceil(K * bits / 8)) uint8.

    Raises:
        ValueError: bits is out of range or a code needs more bits.
    """
    _check_bits(bits)
    if codes.numel() and int(codes.max()) >> bits:
        raise ValueError(f"code {int(codes.max())} does not fit into bits={bits}")
    (rows, count), (run, octets, dtype) = codes.shape, _chunk(bits)
    padded = pad(codes.to(torch.uint8), -count % run)  # (N, chunks * run)
    lanes = padded.view(rows, padded.shape[1] // run, run)  # (N, chunks, run)
    word = torch.zeros(lanes.shape[:2], dtype=dtype, device=codes.device)  # (N, chunks)
    for lane in range(run):
        word |= lanes[..., lane].to(dtype) << (lane * bits)
    stream = word.unsqueeze(-1).view(torch.uint8)[..., :octets]  # (N, chunks, octets)
    return stream.flatten(1)[:, : packed_width(count, bits)].contiguous()  # (N, bytes)


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """Read back what `pack_bits` wrote.

    Args:
        packed: (N, ceil(count * bits / 8)) uint8.
        bits: 1 to 8.
        count: codes per row.

    Returns:
        (N, count) uint8.
    """
    _check_bits(bits)
    if bits in (1, 2):  # one look-up per byte is faster than a pass per code
        words = _table(bits, packed.device).index_select(0, packed.flatten().int())  # (N * bytes,)
        return (
            words.view(torch.uint8).view(len(packed), packed.shape[1] * 8 // bits)[:, :count].contiguous()
        )  # (N, K)
    run, octets, dtype = _chunk(bits)
    rows, chunks = len(packed), -(-count // run)
    short = chunks * octets - packed.shape[1]
    stream = pad(packed, short).view(rows, chunks, octets)  # (N, chunks, octets)
    padded = pad(stream, dtype.itemsize - octets).contiguous()
    word = padded.view(dtype).squeeze(-1)  # (N, chunks)
    codes = torch.empty(rows, chunks, run, dtype=torch.uint8, device=packed.device)  # (N, chunks, run)
    for lane in range(run):
        codes[..., lane] = (word >> (lane * bits)) & ((1 << bits) - 1)
    return codes.view(rows, chunks * run)[:, :count].contiguous()  # (N, K)


@cache
def _table(bits: int, device: torch.device) -> Tensor:
    """The codes in every byte, one word of as many bytes each (256,)."""
    codes = torch.arange(256)[:, None] >> torch.arange(0, 8, bits) & (1 << bits) - 1  # (256, 8 / bits)
    word = {1: torch.int64, 2: torch.int32}[bits]
    return codes.to(torch.uint8).view(word).flatten().to(device)


def unsigned(stored: Tensor) -> Tensor:
    """What int16 numbers are that hold the bits of uint16 ones, int64 of the same shape."""
    return stored.long() & (WIDEST - 1)


def pack_mask(mask: Tensor) -> Tensor:
    """Pack a bool mask (N, K) into (N, ceil(K / 8)) uint8, little bit order."""
    return pack_bits(mask.to(torch.uint8), 1)


def unpack_mask(packed: Tensor, count: int) -> Tensor:
    """Read back the bool mask (N, count) that `pack_mask` wrote."""
    return unpack_bits(packed, 1, count).bool()


def top(score: Tensor, keep: int) -> Tensor:
    """Mark the `keep` largest scores along the last axis: exactly that many, ties to the lower index.

    Args:
        score: (..., K), ranked in float32.
        keep: 0 to K.

    Returns:
        (..., K) bool.
    """
    score, wide = score.float(), score.shape[-1]
    if not 0 < keep < wide:
        return torch.full(score.shape, keep > 0, dtype=torch.bool, device=score.device)  # (..., K)
    least = score.kthvalue(wide - keep + 1, dim=-1, keepdim=True).values  # (..., 1), the smallest kept
    kept, tied = score > least, score == least  # (..., K), (..., K)
    return kept | (tied & (tied.cumsum(-1) <= keep - kept.sum(-1, keepdim=True)))  # (..., K)


def pad(codes: Tensor, count: int) -> Tensor:
    """Zeros behind the last axis; the tensor itself where none are missing, for `pad` would copy it."""
    return torch.nn.functional.pad(codes, (0, count)) if count else codes


def _chunk(bits: int) -> tuple[int, int, torch.dtype]:
    """The fewest codes that fill whole bytes, how many bytes, and an integer that holds them."""
    shared = math.gcd(bits, 8)
    octets = bits // shared
    return 8 // shared, octets, torch.uint8 if octets == 1 else torch.int32 if octets < 4 else torch.int64


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits={bits} is out of range; valid: 1 to 8")
