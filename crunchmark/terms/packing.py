"""Exact bit packing, and the stable ranking that decides what is kept."""

import torch
from torch import Tensor


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
    (rows, count), octets = codes.shape, -(-codes.shape[1] // 8)
    padded = torch.nn.functional.pad(codes.to(torch.uint8), (0, -count % 8))  # (N, K/8 * 8)
    lanes = padded.view(rows, octets, 8)  # (N, K/8, 8)
    word = torch.zeros(lanes.shape[:2], dtype=torch.int64, device=codes.device)  # (N, K/8)
    for lane in range(8):  # 8 codes fill `bits` whole bytes
        word |= lanes[..., lane].long() << (lane * bits)
    stream = word.unsqueeze(-1).view(torch.uint8)[..., :bits]  # (N, K/8, bits)
    return stream.reshape(rows, octets * bits)[:, : packed_width(count, bits)].contiguous()  # (N, bytes)


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
    rows, octets = len(packed), -(-count // 8)
    short = octets * bits - packed.shape[1]
    chunks = torch.nn.functional.pad(packed, (0, short)).view(rows, octets, bits)  # (N, K/8, bits)
    padded = torch.nn.functional.pad(chunks, (0, 8 - bits)).contiguous()  # (N, K/8, 8)
    word = padded.view(torch.int64).squeeze(-1)  # (N, K/8)
    codes = torch.empty(rows, octets, 8, dtype=torch.uint8, device=packed.device)  # (N, K/8, 8)
    for lane in range(8):
        codes[..., lane] = (word >> (lane * bits)) & ((1 << bits) - 1)
    return codes.view(rows, octets * 8)[:, :count].contiguous()  # (N, K)


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
    order = score.float().argsort(dim=-1, descending=True, stable=True)  # (..., K)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order[..., :keep], True)  # (..., K)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"bits={bits} is out of range; valid: 1 to 8")
