"""SliceGPT (Ashkboos et al., ICLR 2024, arXiv:2401.15024): rotate the residual stream, drop its tail."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from math import floor

import torch
from torch import Tensor

from crunchmark import (
    Calibration,
    ModelMethod,
    Plan,
    Unreachable,
    View,
    check_sliceable,
    cut,
    evaluating,
    fuse,
    principal,
    seed_of,
    settle,
    sliced_size,
    steps,
    turn_in,
    turn_out,
    whole,
)


@dataclass(frozen=True)
class SliceGPT(ModelMethod):
    """Between any two blocks the stream may be turned; in its PCA basis the last coordinates carry least.

    align: the width is a multiple of this. orientation: "pca" keeps the eigenvectors themselves,
        "random" turns them once more inside the kept space (the same model, outliers spread).
    """

    align: int = 8
    orientation: str = "pca"

    def __post_init__(self) -> None:
        """Check what a config can get wrong."""
        whole("method.align", self.align)
        if self.orientation not in ("pca", "random"):
            raise ValueError(f"method.orientation={self.orientation!r} is unknown; valid: pca, random")

    @torch.no_grad()
    def compress(self, view: View, plan: Plan, calib: Calibration) -> None:
        """Section 3.3: a basis per norm input, from the stream of the cut model or of the whole one."""
        full = check_sliceable(view)
        if plan.budget == 0:
            return
        width = self.width(view, plan)
        with evaluating(view.model):
            fuse(view)
            self.slice(view, calib, full, width)
        settle(view.model, plan.dtype)

    def slice(self, view: View, calib: Calibration, full: int, width: int) -> None:
        """Turn every step's inputs and outputs into their bases, and keep `width` coordinates."""
        keep = full if calib.inputs == "dense" else width  # what calibration still sees of a basis
        stream = calib.stream(view)
        q = self.basis(stream.hidden, calib, 0, width)  # (full, full)
        stream.advance(_turned(stream.hidden, q[:, :keep]))
        for embedding in view.embeddings:
            turn_in(embedding, q[:, :keep])
        for n, step in enumerate(steps(view), start=1):
            home = step.readers[0].module.weight.device
            for site in step.readers:
                turn_in(site.module, q[:, :keep])
            step.bypass(q[:, :keep].T)  # back to the model's own basis, to see what is to be turned
            step.block.to(calib.device)
            stream.advance(stream.forward(step.index, step.run))
            step.block.to(home)
            after = self.basis(stream.hidden, calib, n, width)
            kept = after[:, : full if step.last else keep]
            for site in step.writers:
                turn_out(site.module, kept)
            step.bypass(q[:, :keep].T @ kept)
            stream.advance(_turned(stream.hidden, kept))
            q = after
        turn_in(view.head, q)
        cut(view, width)

    def basis(self, hidden: Iterable[Tensor], calib: Calibration, n: int, width: int) -> Tensor:
        """Eigenvectors of sum x x^T over all tokens (eq. 8), (D, D) float64, not centred."""
        gram: Tensor | float = 0.0
        for x in hidden:  # (B, T, D)
            rows = x.flatten(0, 1).to(calib.device).double()
            gram = gram + rows.T @ rows
        q, _ = principal(torch.as_tensor(gram))
        q = q.cpu()
        if self.orientation == "random":
            generator = torch.Generator().manual_seed(seed_of(calib.seed, "slicegpt", n))
            noise = torch.randn(width, width, generator=generator, dtype=torch.float64)
            q[:, :width] = q[:, :width] @ torch.linalg.qr(noise)[0]
        return q

    def width(self, view: View, plan: Plan) -> int:
        """The largest multiple of align that fits the plan; nominal: the share of the width.

        Raises:
            ValueError: align is wider than the stream.
        """
        full, dense = check_sliceable(view), view.scope_bytes(plan.scope)
        if self.align > full:
            raise ValueError(f"method.align={self.align} is wider than the stream; valid: 1 to {full}")

        def size(width: int) -> int:
            return sliced_size(view, width, plan.scope) * plan.dtype.itemsize

        room = plan.total + dense - view.scope_bytes("blocks")  # plan.total is without what is not in blocks
        widths = range(self.align, full + 1, self.align)
        if plan.accounting == "nominal":
            fitting = bisect_right(widths, (1 - plan.budget) * full + 1e-9)
            least = self.align / full
        else:
            fitting = bisect_right(widths, room, key=size)
            least = size(self.align) / dense
        if not fitting:
            nearest = max(0.0, floor((1 - least) * 1e4) / 1e4)  # rounded down, so that it is within reach
            raise Unreachable("slicegpt", size(self.align), room, nearest)
        return widths[fitting - 1]


def _turned(hidden: Iterable[Tensor], q: Tensor) -> Iterable[Tensor]:
    """The same hidden states in another basis."""
    return ((x.double() @ q).to(x.dtype) for x in hidden)
