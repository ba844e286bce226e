"""The walker: replays a model block by block on calibration data. The only input catcher."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from crunchmark import progress
from crunchmark.hooks import Call, Enough, Stats, of_inputs, watching
from crunchmark.stats import Stat
from crunchmark.view import Site, View

if TYPE_CHECKING:
    from crunchmark.calib import Calibration

Visit = Callable[[int, list[Site], dict[str, Stats]], None]
Watch = Callable[..., AbstractContextManager[Mapping[str, Stats]]]
Run = Callable[[nn.Module, Tensor, tuple[Any, ...], dict[str, Any]], Any]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, as before outside."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def stubbed(blocks: Sequence[nn.Module], calls: list[Call]) -> Iterator[None]:
    """Inside, a block appends its arguments to calls and returns the hidden states it got."""

    def stub(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs.pop("hidden_states")
        calls.append((args[1:], kwargs))
        return hidden

    saved = [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            block.__dict__["forward"] = stub
        yield
    finally:
        for block, forward in zip(blocks, saved, strict=True):
            block.__dict__.pop("forward", None)
            if forward is not None:
                block.__dict__["forward"] = forward


def _to(value: Any, device: torch.device) -> Any:
    """The same structure with its tensors on the device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(_to(v, device) for v in value)
    if isinstance(value, dict):
        return {k: _to(v, device) for k, v in value.items()}
    return value


def _device(module: nn.Module) -> torch.device:
    """Where the module's weights are."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


class Stream:
    """Hidden states on their way through the blocks, and the arguments each block was called with."""

    def __init__(
        self, blocks: list[nn.Module], hidden: Iterable[Tensor], calls: list[list[Call]], spill: bool = False
    ) -> None:
        self.blocks = blocks
        self.calls = calls  # [batch][block]
        self._dir = TemporaryDirectory(prefix="crunchmark-") if spill else None
        self.hidden: list[Tensor] = []  # per batch (B, T, D), on the CPU
        self.advance(hidden)

    @classmethod
    @torch.no_grad()
    def capture(cls, view: View, tokens: Tensor, batch: int, spill: bool = False) -> "Stream":
        """Run tokens (n, T) through everything but the blocks; costs one embedding lookup.

        Raises:
            ValueError: no tokens, ids beyond the embedding table, or more tokens than learned positions.
        """
        _check_tokens(view, tokens, batch)
        blocks = view.blocks
        device = _device(view.embeddings[0])
        calls: list[list[Call]] = []
        stream = cls(blocks, (), calls, spill)
        with evaluating(view.model):
            for ids in tokens.split(batch):  # (B, T)
                calls.append([])
                caught: list[Tensor] = []
                hook = blocks[0].register_forward_hook(lambda m, a, out, to=caught: to.append(out))
                try:
                    with stubbed(blocks, calls[-1]):
                        view.backbone(ids.to(device), use_cache=False)
                finally:
                    hook.remove()
                stream._put(len(calls) - 1, caught[0])
        return stream

    @torch.no_grad()
    def forward(self, i: int, fn: Run | None = None) -> Iterator[Tensor]:
        """Outputs (B, T, D) of block i, batch by batch, on the CPU; fn runs the block its own way."""
        progress.step(i, len(self.blocks), "block")
        for b in range(len(self.hidden)):
            yield self.block(i, b, self.hidden[b], fn).cpu()

    @torch.no_grad()
    def show(self, i: int) -> None:
        """Run block i for those who watch it, no further than they look."""
        progress.step(i, len(self.blocks), "block")
        for b, hidden in enumerate(self.hidden):
            with suppress(Enough):
                self.block(i, b, hidden)

    def block(self, i: int, b: int, hidden: Tensor, fn: Run | None = None) -> Tensor:
        """Outputs (B, T, D) of block i for batch b with these hidden states (B, T, D), on its device."""
        block = self.blocks[i]
        device = _device(block)
        (args, kwargs), hidden = _to(self.calls[b][i], device), hidden.to(device)
        out = block(hidden, *args, **kwargs) if fn is None else fn(block, hidden, args, kwargs)
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result

    def advance(self, outputs: Iterable[Tensor]) -> None:
        """These outputs are the next block's inputs; a lazy `forward` is consumed batch by batch."""
        for b, out in enumerate(outputs):
            self._put(b, out)

    def _put(self, b: int, out: Tensor) -> None:
        """Keep the hidden states of batch b: in memory, or in a mapped file when spilling."""
        out = out.detach().cpu()
        if b == len(self.hidden):
            self.hidden.append(out)
        if self._dir is None:
            self.hidden[b] = out
            return
        path = Path(self._dir.name) / f"{b}-{out.numel()}.bin"
        mapped = torch.from_file(str(path), shared=True, size=out.numel(), dtype=out.dtype)
        self.hidden[b] = mapped.view(out.shape).copy_(out)


def _check_tokens(view: View, tokens: Tensor, batch: int) -> None:
    """Say in one line what an embedding lookup would say with a stack trace."""
    if tokens.ndim != 2 or tokens.numel() == 0 or batch < 1:
        raise ValueError(f"tokens {tuple(tokens.shape)}, batch {batch}; valid: (n, length) ids, batch >= 1")
    vocab: Any = view.embeddings[0]
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab.num_embeddings:
        bad = low if low < 0 else high
        raise ValueError(f"token id {bad} is outside the model's vocabulary of {vocab.num_embeddings}")
    positions = getattr(view.model.config, "max_position_embeddings", tokens.shape[1])
    if len(view.embeddings) > 1 and tokens.shape[1] > positions:
        raise ValueError(f"sequences of {tokens.shape[1]} tokens; the model has {positions} positions")


def walk(
    view: View,
    calib: "Calibration | None",
    needs: Sequence[type[Stat]],
    visit: Visit,
    tail: bool = False,
    roles: Sequence[str] = (),
) -> Stream | None:
    """Visit the blocks in order, each with the statistics of its layers' inputs.

    calib.inputs "dense": statistics are those of the original model; "compressed": block i sees
    the outputs of the blocks before it as visit left them. No needs: no forward pass, visit only.

    tail: whether the last block's outputs are wanted, which costs a pass of it with compressed inputs.
    roles: statistics of layers of these roles alone; () all.

    Returns:
        The stream, with tail behind the last block (inputs of the final norm); None without needs.
    """
    if not of_inputs(needs):
        for i in range(len(view.blocks)):
            visit(i, view.sites(i), {site.name: {} for site in view.sites(i)})
        return None
    if calib is None:
        raise ValueError(f"{', '.join(k.__name__ for k in needs)} need calibration tokens, there are none")
    stream = calib.stream(view)
    for i, block in enumerate(stream.blocks):
        with ExitStack() as stack:
            stack.callback(block.to, _device(block))
            block.to(calib.device)
            onward = tail or i + 1 < len(stream.blocks)
            watched = [s for s in view.sites(i) if not roles or s.role in roles]
            watch = partial(watching, watched, needs)
            _turn(view, stream, i, watch, visit, calib.inputs == "dense", onward)
    return stream


def _turn(view: View, stream: Stream, i: int, watch: Watch, visit: Visit, dense: bool, onward: bool) -> None:
    """Block i's turn: one pass for statistics, the visit, and (compressed inputs) a second pass onward."""
    sites, once = view.sites(i), dense and onward
    with evaluating(view.model):
        with watch(stop=None if once else stream.blocks[i]) as stats:
            if once:
                stream.advance(stream.forward(i))
            else:
                stream.show(i)
        visit(i, sites, {site.name: stats.get(site.name, {}) for site in sites})
        if onward and not dense:
            stream.advance(stream.forward(i))


def statistics(
    view: View, calib: "Calibration", needs: Sequence[type[Stat]], roles: Sequence[str] = ()
) -> dict[str, Stats]:
    """Statistics of every layer (of these roles, () all) of the model as it is now; nothing is changed."""
    found: dict[str, Stats] = {}
    walk(view, calib, needs, lambda i, sites, stats: found.update(stats), roles=roles)
    return found


def walk_known(
    view: View, calib: "Calibration", needs: Sequence[type[Stat]], visit: Visit, roles: Sequence[str] = ()
) -> None:
    """`walk` with needs that are small: those of the dense model are kept for other cells."""
    if calib.inputs != "dense":
        walk(view, calib, needs, visit, roles=roles)
        return
    name = " ".join((*roles, *(kind.__name__ for kind in needs)))
    known = calib.memo(name, lambda: statistics(view, calib, needs, roles))
    for i in range(len(view.blocks)):
        visit(i, view.sites(i), known)
