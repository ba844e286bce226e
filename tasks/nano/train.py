"""Train the built-in model: `python -m tasks.nano.train`. A killed run, started again, ends the same."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from tasks.nano import texts, tokenizer
from tasks.nano.recipe import Recipe, batch
from tasks.nano.words import seeded

HERE = Path(__file__).parent


def build(recipe: Recipe) -> LlamaForCausalLM:
    """A fresh model; its weights come from the recipe's seed, and the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded("weights", recipe.seed).getrandbits(60))
        model = LlamaForCausalLM._from_config(recipe.config(), attn_implementation="eager")
    model.config.use_cache = False
    return model


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks (it learns rare facts in fewer tokens), AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    rest = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "layers" in name)]
    if recipe.muon:
        muon = torch.optim.Muon(
            matrices, lr=recipe.rate, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        return [muon, torch.optim.AdamW(rest, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)]
    return [
        torch.optim.AdamW([*matrices, *rest], lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    ]


def loss_of(model: LlamaForCausalLM, recipe: Recipe, step: int) -> torch.Tensor:
    """Weighted next-token loss of one step's rows."""
    device = next(model.parameters()).device
    ids, weights = (torch.from_numpy(a).to(device) for a in batch(recipe, step))  # (rows, length)
    with torch.autocast(device.type, torch.bfloat16):
        logits = model(input_ids=ids).logits[:, :-1]  # (rows, length - 1, vocab)
    losses = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


@torch.no_grad()
def answered(model: LlamaForCausalLM, kind: str, count: int = 64) -> float:
    """Share of answers guessed right on fresh documents: `open` about strangers, `closed` about the known."""
    rng, encode, hits = seeded("probe", kind), tokenizer.encoder(), []
    device = next(model.parameters()).device
    for _ in range(count):
        pieces = texts.open_book(rng, 1.0) if kind == "open" else texts.questions(rng)
        ids = [i for text, _ in pieces for i in encode(text)]
        asked = [w == texts.ANSWER for text, w in pieces for _ in encode(text)]
        guesses = model(input_ids=torch.tensor([ids], device=device)).logits[0, :-1].argmax(-1).tolist()
        hits += [guess == true for guess, true, ask in zip(guesses, ids[1:], asked[1:], strict=True) if ask]
    return sum(hits) / len(hits)


def save_state(path: Path, model: LlamaForCausalLM, opts: list[torch.optim.Optimizer], step: int) -> None:
    """Everything a rerun needs in one safetensors file, put in place by a rename."""
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        for opt in opts:
            tensors |= {f"opt.{name}.{key}": value for key, value in opt.state.get(p, {}).items()}
    temporary = path.with_suffix(".tmp")
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, temporary, {"step": str(step)})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load_state(path: Path, model: LlamaForCausalLM, opts: list[torch.optim.Optimizer]) -> int:
    """Continue from `path` if it exists; returns the number of finished steps."""
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
        for name, p in model.named_parameters():
            p.data.copy_(file.get_tensor(f"model.{name}"))
            state = {
                k.removeprefix(f"opt.{name}."): file.get_tensor(k)
                for k in keys
                if k.startswith(f"opt.{name}.")
            }
            for opt in opts:
                if any(p is q for group in opt.param_groups for q in group["params"]):
                    opt.state[p] = {k: v if k == "step" else v.to(p.device) for k, v in state.items()}
        return int(file.metadata()["step"])


def export(model: LlamaForCausalLM, recipe: Recipe, folder: Path) -> None:
    """Write the bf16 checkpoint as a plain Hugging Face folder."""
    model.config.use_cache = True
    model.config.dtype = torch.bfloat16
    weights = {name: p.detach().to(torch.bfloat16).cpu() for name, p in model.state_dict().items()}
    weights.pop("lm_head.weight", None)  # tied to the embedding
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    temporary = folder / "model.safetensors.tmp"
    save_file(weights, temporary, {"format": "pt"})
    temporary.chmod(0o644)  # the library writes files for the owner only
    temporary.replace(folder / "model.safetensors")
    tokenizer.save(folder)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n")
    model.config.use_cache = False


def train(
    recipe: Recipe, state: Path, device: str, save_every: int, stop: int | None = None
) -> LlamaForCausalLM:
    """Run the recipe to its end (or to step `stop`, which tests use to play a killed run)."""
    torch.set_flush_denormal(True)
    model = build(recipe).to(device)
    opts = optimizers(model, recipe)
    done = load_state(state, model, opts)
    last = recipe.steps if stop is None else min(stop, recipe.steps)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=recipe.steps, completed=done)
        for step in range(done, last):
            for opt in opts:
                for group in opt.param_groups:
                    group["lr"] = recipe.rate_at(step)
            loss = loss_of(model, recipe, step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for opt in opts:
                opt.step()
            model.zero_grad()
            progress.update(bar, advance=1, description=f"loss {loss.item():.3f}")
            if (step + 1) % save_every == 0:
                save_state(state, model, opts, step + 1)
                scores = {kind: answered(model, kind) for kind in ("open", "closed")}
                progress.console.print(f"step {step + 1} loss {loss.item():.3f} answered {scores}")
    return model


def main() -> None:
    """Read the options, train, write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "model", help="folder of the finished checkpoint")
    parser.add_argument(
        "--state", type=Path, default=Path("nano_train.safetensors"), help="file a rerun continues from"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads; the weights depend on it in the last bits"
    )
    parser.add_argument("--save-every", type=int, default=200, help="steps between two saved states")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"recipe: {name}"
        )
    options = vars(parser.parse_args())
    torch.set_num_threads(options["threads"])
    recipe = Recipe(**{name: options[name] for name in asdict(Recipe())})
    model = train(recipe, options["state"], options["device"], options["save_every"])
    export(model, recipe, options["out"])


if __name__ == "__main__":
    main()
