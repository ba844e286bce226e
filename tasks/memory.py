"""What the dense parent said of the next token, in a folder: numpy files, written and read a piece at a time.

Whole distributions as float16 log-probabilities where they fit in a bound, else the k likeliest tokens and
the mass of all others together. The other model's are rounded in the same way: equal models stay equal.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from crunchmark.tensorfile import damaged

LOWEST = torch.finfo(torch.float16).min
PIECE = 2**24  # float32 log-probabilities handled at a time
DIVERGENCES = ("kl", "reverse_kl", "js")


def kept(tokens: int, vocabulary: int, bound: int) -> int | None:
    """How many of the likeliest tokens per position fit in the bound (bytes); None where all of them do."""
    if 2 * tokens * vocabulary <= bound:
        return None
    return max(1, min(vocabulary - 1, (bound // tokens - 2) // 6))  # float16 and int32 each, and the rest


@dataclass
class Notes:
    """Of T predicted tokens, in order."""

    logp: NDArray[np.float16]  # (T, vocabulary), or (T, k + 1) with the rest last
    ids: NDArray[np.int32] | None  # (T, k) which tokens, the likeliest first; None: all of them
    best: NDArray[np.int32]  # (T,) the likeliest token
    gold: NDArray[np.float32]  # (T,) log-probability of the text's own token

    @classmethod
    def create(cls, folder: Path, tokens: int, vocabulary: int, bound: int) -> "Notes":
        """New files of at most about `bound` bytes."""
        k = kept(tokens, vocabulary, bound)
        wide = vocabulary if k is None else k + 1

        def new(name: str, dtype: type, *shape: int) -> NDArray:  # type: ignore[type-arg]
            return open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)

        ids = None if k is None else new("ids", np.int32, tokens, k)
        logp = new("logp", np.float16, tokens, wide)
        return cls(logp, ids, new("best", np.int32, tokens), new("gold", np.float32, tokens))

    @classmethod
    def load(cls, folder: Path) -> "Notes":
        """The files that `create` made, mapped into memory.

        Raises:
            ValueError: one is damaged or gone; names the folder to delete.
        """
        found = {}
        for name in ("logp", "ids", "best", "gold"):
            path = folder / f"{name}.npy"
            try:
                found[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except FileNotFoundError as error:
                if name != "ids":
                    raise damaged(path, error) from None
            except (ValueError, EOFError, OSError) as error:
                raise damaged(path, error) from None
        return cls(found["logp"], found.get("ids"), found["best"], found["gold"])

    @torch.no_grad()
    def put(self, start: int, logits: Tensor, target: Tensor) -> None:
        """Write what logits (n, vocabulary) say, of which the text says target (n,)."""
        for at, part, gold in _pieces(start, logits, target):
            here, logp = slice(at, at + len(part)), F.log_softmax(part.float(), 1)
            ids = None
            if self.ids is not None:
                ids = logp.topk(self.ids.shape[1], dim=1).indices
                self.ids[here] = ids.cpu().numpy()
            self.logp[here] = rounded(coarse(logp, ids)).cpu().numpy()
            self.best[here] = part.argmax(1).cpu().numpy()
            self.gold[here] = _of(logp, gold).cpu().numpy()

    @torch.no_grad()
    def against(self, start: int, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Sums over n positions: the divergences, a bound on kl from above, agreement, and the loss added."""
        total = dict.fromkeys((*DIVERGENCES, "kl_above", "agreement", "loss_added"), 0.0)
        for at, part, gold in _pieces(start, logits, target):
            for name, value in self._piece(slice(at, at + len(part)), part, gold).items():
                total[name] += float(value.double().sum())
        return total

    def _piece(self, here: slice, logits: Tensor, gold: Tensor) -> dict[str, Tensor]:
        def read(array: NDArray) -> Tensor:  # type: ignore[type-arg]
            return torch.from_numpy(array[here].copy()).to(logits.device)

        logp = F.log_softmax(logits.float(), 1)
        ids = None if self.ids is None else read(self.ids).long()
        p, q = (F.log_softmax(x.float(), 1) for x in (read(self.logp), rounded(coarse(logp, ids))))
        found = divergences(p, q)
        found["kl_above"] = found["kl"] + (0.0 if ids is None else _hidden(p, q, logp, ids))
        same = (logits.argmax(1) == read(self.best)) & ~logp[:, 0].isnan()
        return found | {"agreement": same.float(), "loss_added": read(self.gold) - _of(logp, gold)}


def rounded(logp: Tensor) -> Tensor:
    """Log-probabilities as float16 keeps them; a probability of zero stays one, no other becomes one."""
    return torch.where(torch.isneginf(logp), logp, logp.clamp(min=LOWEST)).half()


def coarse(logp: Tensor, ids: Tensor | None) -> Tensor:
    """Log-probabilities (n, k + 1) of those tokens (n, k) and of all others together; None: all apart."""
    if ids is None:
        return logp
    rest = logp.scatter(1, ids, -math.inf).logsumexp(1, keepdim=True)
    return torch.cat([logp.gather(1, ids), rest], 1)


def divergences(p: Tensor, q: Tensor) -> dict[str, Tensor]:
    """KL(p || q), KL(q || p), Jensen-Shannon per position (n,) in nats, of log-probabilities (n, tokens)."""
    mean = torch.where(p == q, p, torch.logaddexp(p, q) - math.log(2))
    return dict(zip(DIVERGENCES, (_kl(p, q), _kl(q, p), (_kl(p, mean) + _kl(q, mean)) / 2), strict=True))


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Sum of p log(p / q) per position; what p never says adds nothing, and rounding makes none negative."""
    weight = p.exp()
    return torch.where(weight == 0, 0.0, weight * (p - q)).sum(1).clamp(min=0)


def _hidden(p: Tensor, q: Tensor, logp: Tensor, ids: Tensor) -> Tensor:
    """At most what the coarse KL lacks, per position: none of the others is likelier than the last one kept.

    The others' share of KL is sum p log(p / q) <= P log(p_k / q_min) for their mass P, of which the coarse
    KL holds P log(P / Q).
    """
    least = logp.scatter(1, ids, math.inf).amin(1)
    mass = p[:, -1].exp()
    return torch.where(mass == 0, 0.0, mass * (p[:, -2] - least - p[:, -1] + q[:, -1])).clamp(min=0)


def _of(logp: Tensor, target: Tensor) -> Tensor:
    return logp.gather(1, target[:, None])[:, 0]


def _pieces(start: int, logits: Tensor, target: Tensor) -> "zip[tuple[int, Tensor, Tensor]]":
    """Positions in pieces of PIECE numbers, with where each begins."""
    size = max(1, PIECE // logits.shape[1])
    begins = range(start, start + len(logits), size)
    return zip(begins, logits.split(size), target.split(size), strict=True)
