"""Who multiplies by the packed form of a model's layers: given kernels, told from metas, seen in a model."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from crunchmark.kernels import Meta, kernel_of
from crunchmark.terms import KINDS, Dense, Join, Laid, Shift, Term, Zero

UNPACKED, DENSE, FACTORS = "unpacked per call", "dense", "factors"
NOTHING = "nothing"  # to multiply


def equip(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Give every leaf of a model that is on the device the kernel that runs it in that dtype, if any."""
    for leaf in [m for m in model.modules() if isinstance(m, Laid)]:
        found = kernel_of(leaf.pack()[1], device, dtype)
        leaf.run_by(found and found(leaf.run_by(None), dtype))


def told(meta: Meta, device: torch.device, dtype: torch.dtype) -> list[str]:
    """What runs each part of a term with that meta there."""
    if "terms" in meta:
        return [label for part in meta["terms"] for label in told(part, device, dtype)]
    return _labels(meta["kind"], kernel_of(meta, device, dtype))


def seen(layer: nn.Module) -> list[str]:
    """What runs each part of a layer of a loaded model."""
    leaves = [m for m in layer.modules() if isinstance(m, Term) and not isinstance(m, Join)]
    return [label for m in leaves for label in _labels(m.kind, getattr(m, "kernel", None))] or [DENSE]


def _labels(kind: str, kernel: Any) -> list[str]:
    """Of one leaf; none where it multiplies nothing."""
    if kind in (Shift.kind, Zero.kind):
        return []
    alone = UNPACKED if KINDS[kind].simulated else DENSE if kind == Dense.kind else FACTORS
    return [kernel.label if kernel else alone]


def executed_by(layers: Iterable[Sequence[str]]) -> str:
    """What runs the layers, told or seen; the most layers first: "int4 kernel: 24; dense: 4"."""
    found = Counter(" + ".join(dict.fromkeys(labels)) or NOTHING for labels in layers)
    if len(found) < 2:
        return next(iter(found), DENSE)
    return "; ".join(f"{label}: {count}" for label, count in found.most_common())
