"""Released code that decides what each layer keeps: WeLore's thresholds, EvoPress's search.

ASVD's search is with its decomposition, in `lowrank`.
"""

import io
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from math import lcm
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.peers.checkout import Instead, load, quiet

HALVINGS = 50  # of the interval WeLore's threshold is sought in
QUIET = SimpleNamespace(info=lambda *_: None)
Ranks = dict[int, dict[str, int]]  # block -> layer -> directions that go


def welore(
    reference: Path, model: Any, ids: Tensor, ratio: float, half: bool = True, saving: bool = False
) -> Any:
    """`rank_analysis_weight`, `adaptive_rank_pruning` and `do_rank_reduction` of WeLore's repository.

    It has thresholds for two models and none for others: here it is the largest whose ranks leave the share
    1 - ratio of the blocks' parameters. Factors are multiplied, to run in the model's own dtype.

    half: as released, factors are rounded to bfloat16.
    saving: layers whose factors would not be smaller than their weight stay dense.
    """
    utils, ranks, reduction, layers = load(
        reference, "WeLore", "utils", "lib.rank_utils", "lib.rank_reduction", "lib.LowRankLayer"
    )
    blocks = [_linears(block) for block in model.model.layers]
    with quiet(), torch.no_grad():
        values = ranks.rank_analysis_weight(None, model, None, None)

        def taken(threshold: float) -> Ranks:
            found: Ranks = utils.adaptive_rank_pruning(
                SimpleNamespace(rank_thresold=threshold), threshold, values, QUIET
            )
            return _savers(found, blocks) if saving else found

        low, high = 0.0, 1.0  # of thresholds: the first leaves too much, the second not
        whole = sum(m.weight.numel() for block in blocks for m in block.values())
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = _left(taken(middle), blocks) <= (1 - ratio) * whole
            low, high = (low, middle) if fits else (middle, high)
        wide = Instead(torch, bfloat16=torch.bfloat16 if half else torch.float32)
        with patch.object(layers, "torch", wide):
            reduction.do_rank_reduction(None, model, None, taken(high), 0.0, QUIET, False)
    for i, block in enumerate(model.model.layers):
        for path, linear in blocks[i].items():
            made = block.get_submodule(path)
            if made is not linear:
                linear.weight.data = made.U.weight.detach().float() @ made.V.weight.detach().float()
                block.set_submodule(path, linear)
    return model


def _linears(block: nn.Module) -> dict[str, nn.Linear]:
    """Path -> linear layer of a block."""
    return {path: m for path, m in block.named_modules() if isinstance(m, nn.Linear)}


def _left(found: Ranks, blocks: Sequence[Mapping[str, nn.Linear]]) -> int:
    """Parameters of layers and factors together."""
    total = 0
    for i, block in enumerate(blocks):
        for path, linear in block.items():
            rows, cols = linear.weight.shape
            gone = int(found[i][path])
            total += (min(rows, cols) - gone) * (rows + cols) if gone else rows * cols
    return total


def _savers(found: Ranks, blocks: Sequence[Mapping[str, nn.Linear]]) -> Ranks:
    """The same ranks where factors are smaller than the weight; elsewhere nothing goes."""
    kept: Ranks = {}
    for i, block in enumerate(blocks):
        kept[i] = {}
        for path, linear in block.items():
            rows, cols = linear.weight.shape
            smaller = (min(rows, cols) - found[i][path]) * (rows + cols) < rows * cols
            kept[i][path] = found[i][path] if smaller else 0
    return kept


def evopress(
    reference: Path,
    model: Any,
    ids: Tensor,
    ratio: float,
    generations: int,
    offspring: int,
    survivors: Sequence[int],
    tokens: Sequence[int],
    reach: int = 5,
    seed: int = 0,
) -> Any:
    """`evo_prune_search` of EvoPress's repository, fitness kl; ratio is the share removed by uniform levels.

    Its levels are numbers of weights taken away. The database here holds truncated SVDs, `reach` levels up
    and down of the rank that leaves 1 - ratio, all steps of the same number of parameters; where factors are
    no smaller than the weight, the weight itself is the last level. `main` runs with this model and these ids
    in place of what it would download, on the CPU; perplexities that it only logs are not computed.
    """
    (script,) = load(reference, "EvoPress", "evo_prune_search")
    args = SimpleNamespace(generations=generations, offspring=offspring, seed=seed, fitness_fn="kl")
    args.__dict__.update(survivors_per_selection=survivors, tokens_per_selection=tokens)
    args.__dict__.update(max_level=99999, max_total_deviation=99999, eval_every=generations, log_wandb=False)
    args.__dict__.update(eval_datasets=[], eval_sequence_length=1, eval_tokens=0, dtype="auto")
    args.__dict__.update(calibration_data="", calibration_tokens=0, calibration_sequence_length=1)
    args.__dict__.update(model_name_or_path="", tokenizer_name="", use_fast_tokenizer=False)
    args.__dict__.update(memory_efficient=False, attn_implementation=None, configuration_name="found.txt")
    with TemporaryDirectory() as folder, _here(script, model, ids, args):
        args.sparse_weights_path = folder
        _database(model, Path(folder), ratio, reach)
        script.main()
        lines = (Path(folder) / args.configuration_name).read_text().splitlines()
        found = {name: int(level) for name, level in (line.split(": ") for line in lines)}
        script.load_layers(model, list(found), list(found.values()), folder)
    return model


def _database(model: Any, folder: Path, ratio: float, reach: int) -> None:
    """Truncated SVDs by layer and level, in the files that the search looks for."""
    homes = {f"model.layers.{i}": block for i, block in enumerate(model.model.layers)}
    linears = {f"{home}.{path}": m for home, block in homes.items() for path, m in _linears(block).items()}
    step = lcm(*(sum(m.weight.shape) for m in linears.values()))  # parameters
    for name, linear in linears.items():
        rows, cols = linear.weight.shape
        u, s, vh = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
        (folder / name).mkdir()
        for level in range(reach, -reach - 1, -1):
            rank = int((1 - ratio) * rows * cols) // (rows + cols) - level * step // (rows + cols)
            whole = rank * (rows + cols) >= rows * cols
            if rank > 0:
                kept = linear.weight.detach().clone() if whole else u[:, :rank] * s[:rank] @ vh[:rank]
                torch.save(kept, folder / name / f"{level}.pth")
            if whole:
                break


@contextmanager
def _here(script: Any, model: Any, ids: Tensor, args: Any) -> Iterator[None]:
    """Inside, the script's `main` takes this model, these ids and these arguments, and the CPU for a GPU."""
    move, state = Tensor.to, random.getstate()

    def to(tensor: Tensor, *where: Any, **how: Any) -> Tensor:
        return tensor if where == ("cuda",) else move(tensor, *where, **how)

    given = {
        "parse_args": lambda: args,
        "AutoModelForCausalLM": SimpleNamespace(from_pretrained=lambda *_, **__: model),
        "AutoTokenizer": SimpleNamespace(from_pretrained=lambda *_, **__: None),
        "compute_perplexity": lambda *_: 0.0,
        "get_data": lambda *_, **__: list(ids.unsqueeze(1)),
    }
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(patch.object(Tensor, "to", to))
        for name, value in given.items():
            stack.enter_context(patch.object(script, name, value))
        stack.callback(random.setstate, state)
        yield
