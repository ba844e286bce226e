"""Single weights beside another term: compressed sparse rows."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from crunchmark.terms.base import Meta, Packed, expect
from crunchmark.terms.dense import dtype_name, dtype_of, own
from crunchmark.terms.laid import Laid
from crunchmark.terms.packing import WIDEST, unsigned


class Outliers(Laid):
    """A few weights of each row, by column: cheaper than a bitmap where less than one in sixteen is there."""

    kind: ClassVar[str] = "outliers"
    starts: Tensor  # (out + 1,) int32, where each row begins in columns and values
    columns: Tensor  # (kept,) int16 that holds the bits of an uint16, ascending in each row
    values: Tensor  # (kept,)

    def __init__(self, shape: tuple[int, int], starts: Tensor, columns: Tensor, values: Tensor) -> None:
        super().__init__(shape)
        self.register_buffer("starts", own(starts, torch.int32))
        self.register_buffer("columns", own(columns, torch.int16))
        self.register_buffer("values", own(values, values.dtype))

    @classmethod
    def of(cls, weight: Tensor, mask: Tensor, dtype: torch.dtype) -> Self:
        """The weights (out, in) under the bool mask (out, in).

        Raises:
            ValueError: there are more inputs than 16 bits can name.
        """
        (out, wide), columns = weight.shape, mask.nonzero()[:, 1]  # (kept,)
        _check_width(wide)
        starts = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])  # (out + 1,)
        return cls((out, wide), starts, columns.to(torch.int16), weight[mask].to(dtype))

    @staticmethod
    def size(shape: tuple[int, int], kept: int, itemsize: int) -> int:
        """Bytes of row starts, columns and values."""
        return 4 * (shape[0] + 1) + kept * (2 + itemsize)

    def dense(self) -> Tensor:
        """The weight (out, in) in float32."""
        counts = self.starts.diff()  # (out,)
        row = torch.arange(self.out_features, device=counts.device).repeat_interleave(counts)  # (kept,)
        weight = self.values.new_zeros(self.shape, dtype=torch.float32)  # (out, in)
        weight[row, unsigned(self.columns)] = self.values.float()
        return weight

    def pack(self) -> tuple[Packed, Meta]:
        """Row starts, columns and values; meta carries shape, kept and dtype."""
        meta = {"kind": self.kind, "shape": list(self.shape), "kept": len(self.values)}
        tensors = {"starts": self.starts, "columns": self.columns, "values": self.values}
        return tensors, meta | {"dtype": dtype_name(self.values.dtype)}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], meta: Meta) -> Self:
        """The term that `pack` described.

        Raises:
            ValueError: a tensor is missing, has another shape or dtype, or names weights that are not there.
        """
        kept, (out, wide) = meta["kept"], meta["shape"]
        _check_width(wide)
        starts = expect(tensors, "starts", (out + 1,), torch.int32)
        columns = expect(tensors, "columns", (kept,), torch.int16)
        values = expect(tensors, "values", (kept,), dtype_of(meta))
        counts = starts.diff()
        if int(starts[0]) or int(starts[-1]) != kept or int(counts.min()) < 0:
            raise ValueError(f"packed tensor 'starts' does not rise from 0 to kept={kept}")
        row = torch.arange(out).repeat_interleave(counts.cpu())  # (kept,)
        column = unsigned(columns).cpu()  # (kept,)
        if bool((column >= wide).any()) or bool((row * wide + column).diff().lt(1).any()):
            raise ValueError(f"packed tensor 'columns' does not rise within the rows; valid: below {wide}")
        return cls((out, wide), starts, columns, values)

    def nominal(self) -> float:
        """Nothing: papers name the bits of the codes, which these come on top of."""
        return 0.0


def _check_width(wide: int) -> None:
    if wide > WIDEST:
        raise ValueError(f"in_features={wide} is out of range; valid: at most {WIDEST} with 16-bit columns")
