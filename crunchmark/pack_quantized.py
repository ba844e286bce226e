"""Quantised layers as compressed-tensors' pack-quantized format: the codes as they are, not rounded again."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from crunchmark.terms import Quantised, Term

BITS = (4, 8)  # what vLLM runs; the format itself packs any number up to 8
FORMAT = "pack-quantized"
SCALE = torch.float16  # of scales, and so of the model: loaders cast scales to its dtype
ROUNDED = 2.0**-11  # relative, of codes times scale in float16
TINY = 2.0**-24  # the smallest float16


def why_not(term: Term) -> str:
    """What keeps a term out of the format; nothing where it goes in."""
    if term.kind != Quantised.kind or not isinstance(term, Quantised):
        return f"is of kind {term.kind!r}; valid: {Quantised.kind!r}"
    if term.bits not in BITS:
        return f"has {term.bits} bits; valid: {' or '.join(map(str, BITS))}"
    if term.group != -1 and term.shape[1] % term.group:
        return f"has groups of {term.group} in rows of {term.shape[1]}; valid: groups that divide rows"
    return ""


def check(terms: Mapping[str, Term]) -> None:
    """Check that every layer goes into the format, and that there is one.

    Raises:
        ValueError: one does not; names the first.
    """
    if not terms:
        raise ValueError("to=compressed_tensors: every layer is dense; valid: to=hf")
    for name, term in terms.items():
        why = why_not(term)
        if why:
            raise ValueError(f"to=compressed_tensors: layer {name} {why}, or to=hf")


def check_linear(names: Iterable[str], model: nn.Module) -> None:
    """Check that the layers are of the one class the format knows.

    Raises:
        ValueError: one is not; names the first.
    """
    for name in names:
        module = model.get_submodule(name)
        if not isinstance(module, nn.Linear):
            raise ValueError(
                f"to=compressed_tensors: layer {name} is a {type(module).__name__}; valid: a Linear, or to=hf"
            )


def unified(terms: Mapping[str, Quantised]) -> dict[str, Quantised]:
    """The same weights; all layers of as many bits get groups as fine as the finest, where they divide.

    A coarse group is several fine ones of one scale. vLLM joins q, k and v, and gate and up, which must
    then be alike.
    """
    finest = {
        bits: min((t.group for t in terms.values() if t.bits == bits and t.group > 0), default=-1)
        for bits in BITS
    }
    return {name: _finer(term, finest[term.bits]) for name, term in terms.items()}


def _finer(term: Quantised, group: int) -> Quantised:
    """The term in groups of `group`, or as it is where these do not divide its own."""
    wide, groups = term.shape[1], term.scale.shape[1]
    times, rest = divmod(wide // groups, group)
    if group == -1 or rest or times == 1:
        return term
    zero = None if term.zero is None else term.zeros().repeat_interleave(times, 1)  # (out, wide / group)
    return Quantised.of(term.unpacked(), term.scale.repeat_interleave(times, 1), zero, term.bits, group)


def settings(terms: Mapping[str, Quantised]) -> dict[tuple[int, int, bool], list[str]]:
    """(bits, group, symmetric) -> the layers that have it."""

    def key(name: str) -> tuple[int, int, bool]:
        term = terms[name]
        return term.bits, term.group, term.zero is None

    return {setting: list(names) for setting, names in groupby(sorted(terms, key=key), key)}


def described(terms: Mapping[str, Quantised], linears: Iterable[str]) -> dict[str, Any]:
    """The quantization_config of config.json.

    linears: names of all linear layers of the model; those without a term are to be ignored.

    Where all layers share one setting with stored zeros, transformers is told to dequantise as it loads:
    left packed, it (5.23) expects zeros as they are before packing, and refuses those of any checkpoint.
    """
    from compressed_tensors import __version__
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme

    found = settings(terms)
    groups = {
        f"group_{i}": QuantizationScheme(
            targets=names if len(found) > 1 else ["Linear"], weights=_args(*setting), format=FORMAT
        )
        for i, (setting, names) in enumerate(found.items())
    }
    config = QuantizationConfig(
        config_groups=groups,
        format=FORMAT,
        quantization_status="compressed",
        ignore=[name for name in linears if name not in terms],
    )
    dequantize = {"dequantize": True} if len(found) == 1 and not next(iter(found))[-1] else {}
    return {**config.model_dump(mode="json"), "version": __version__, **dequantize}


def remark(terms: Mapping[str, Quantised]) -> str:
    """What a reader of the folder must know; nothing where every reader takes it."""
    found = settings(terms)
    if len(found) == 1 or all(sym for *_, sym in found):
        return ""
    return (
        f"It mixes {len(found)} settings, some with stored zeros: transformers 5.23 does not read such "
        "folders, compressed-tensors' own `convert_checkpoint` does."
    )


def _args(bits: int, group: int, sym: bool) -> Any:
    from compressed_tensors.quantization import QuantizationArgs

    rows = {"strategy": "channel"} if group == -1 else {"strategy": "group", "group_size": group}
    return QuantizationArgs(num_bits=bits, type="int", symmetric=sym, **rows)


def packed(name: str, term: Quantised) -> dict[str, Tensor]:
    """The tensors that stand in for the layer's weight, by their names in the file.

    Raises:
        ValueError: the library does not read the same codes, zeros and weights from them.
    """
    from compressed_tensors.compressors.pack_quantized import pack_to_int32

    middle = 2 ** (term.bits - 1)  # the format's codes are signed
    codes = term.unpacked()  # (out, in)
    tensors = {
        "weight_packed": pack_to_int32(_signed(codes, middle), term.bits),
        "weight_scale": term.scale,
        "weight_shape": torch.tensor(term.shape),
    }
    if term.zero is not None:
        zeros = term.zeros()  # (out, groups)
        tensors["weight_zero_point"] = pack_to_int32(_signed(zeros, middle), term.bits, packed_dim=0)
    _verify(name, term, codes, tensors)
    return {f"{name}.{part}": t.contiguous() for part, t in tensors.items()}


def _signed(codes: Tensor, middle: int) -> Tensor:
    return (codes.to(torch.int16) - middle).to(torch.int8)


def _verify(name: str, term: Quantised, codes: Tensor, tensors: Mapping[str, Tensor]) -> None:
    """Read the tensors with the library and compare: codes exactly, weights within a rounding of float16."""
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor, unpack_from_int32
    from compressed_tensors.quantization import QuantizationScheme

    back = unpack_from_int32(tensors["weight_packed"], term.bits, torch.Size(term.shape))  # (out, in) int8
    same = torch.equal(back, _signed(codes, 2 ** (term.bits - 1)))
    scheme = QuantizationScheme(targets=[name], weights=_args(term.bits, term.group, term.zero is None))
    read = PackedQuantizationCompressor.decompress(dict(tensors), scheme)["weight"].float()  # (out, in)
    ours = term.dense()
    if not same or not ((read - ours).abs() <= ROUNDED * ours.abs() + TINY).all():
        raise ValueError(f"layer {name}: compressed-tensors reads other weights than those of the artifact")
