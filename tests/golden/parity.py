"""Our side of the parity table: recompute our perplexities and set them beside the papers' released code.

python -m tests.golden.parity --check              recompute ours, print the table, exit 1 where it disagrees
python -m tests.golden.parity --write              the same, then write ours into parity.json and README.md
python -m tests.golden.parity --write --reference DIR   the reference's numbers too, from checkouts in DIR
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.peers import PEERS, REPOSITORIES, commit
from crunchmark.allocation import Uniform, equal_shares
from crunchmark.calib import Calibration, Source, draw
from crunchmark.compress import allocate, compress
from crunchmark.interface import Allocator, Method, ModelMethod
from crunchmark.models import ModelSpec
from crunchmark.shared import Shared
from crunchmark.view import View
from tasks.ppl import Perplexity

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
OUTSIDE = ROOT.parent / "shared/data"  # real models and texts, where they are
GOLDEN = HERE / "parity.json"
MARKS = ("<!-- table: python -m tests.golden.parity --write -->", "<!-- end of table -->")
WINDOW = 256
STORIES = 600  # the first so many stories calibrate, the rest are evaluated on
Golden = dict[str, Any]


def golden() -> list[Golden]:
    """The rows of parity.json."""
    rows: list[Golden] = json.loads(GOLDEN.read_text())["rows"]
    return rows


def without() -> dict[str, str]:
    """Methods that have no row, and why."""
    found: dict[str, str] = json.loads(GOLDEN.read_text())["without"]
    return found


def here(row: Golden) -> bool:
    """Whether the row's model is on this machine."""
    return row["model"] != "stories260K" or OUTSIDE.is_dir()


def driver(row: Golden) -> str:
    """The row's key in PEERS: its allocator, where the released code is that of one, or its method."""
    name: str = row.get("driver", row["method"])
    return name


@cache
def texts(model: str) -> tuple[Path, Path]:
    """Calibration text and evaluation text."""
    if model != "stories260K":
        return ROOT / "tasks/nano/data/calib.txt", ROOT / "tasks/nano/data/ppl.txt"
    told = json.loads((OUTSIDE / "tinystories/tinystories_1000.json").read_text())
    plain = [story for story in told if story.isascii()]
    parts = [plain[:STORIES], plain[STORIES:]]
    files = [Path(gettempdir()) / f"crunchmark-parity-{name}.txt" for name in ("calib", "ppl")]
    for file, part in zip(files, parts, strict=True):
        file.write_text("\n\n".join(part))
    return files[0], files[1]


@dataclass(frozen=True)
class Setup:
    """What a row compresses: made from the configuration like any run."""

    spec: ModelSpec
    method: Method | ModelMethod
    allocator: Allocator
    budget: float
    calib: Calibration

    @classmethod
    def of(cls, row: Golden) -> "Setup":
        """The row's setup."""
        calibration, _ = texts(row["model"])
        overrides = [f"method={row['method']}", "label=golden", f"model.path={path_of(row)}"]
        overrides += [f"calib.path={calibration}", *row["overrides"]]
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base=None):
            config: Any = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
        spec, how = ModelSpec(**config["model"]), config["calib"]
        n, length, seed, inputs, batch, _ = map(how.pop, ("n", "length", "seed", "inputs", "batch", "spill"))
        ids = draw(Source(**how), spec.tokenizer(), n, length, seed).ids
        calib = Calibration(ids, inputs, batch, seed)
        made = [instantiate(config[name]) for name in ("method", "allocate")]
        return cls(spec, *made, config["budget"], calib)


def path_of(row: Golden) -> str:
    """Where the row's model is."""
    nano = ROOT / "tasks/nano/model"
    if row["model"] == "nano_mha":
        return str(_ungrouped(nano))
    return str(nano if row["model"] == "nano" else OUTSIDE / "models" / row["model"])


@cache
def _ungrouped(path: Path) -> Path:
    """The same function with keys and values of their own for every query head, in a folder of its own."""
    folder, spec = Path(gettempdir()) / "crunchmark-parity-nano_mha", ModelSpec(str(path))
    config = AutoConfig.from_pretrained(path)
    groups = config.num_attention_heads // config.num_key_value_heads
    weights = spec.load().state_dict()
    for name in (n for n in weights if n.endswith(("k_proj.weight", "v_proj.weight"))):
        heads = weights[name].unflatten(0, (-1, config.head_dim))  # (KV, dh, in)
        weights[name] = heads.repeat_interleave(groups, 0).flatten(0, 1)  # (H dh, in)
    config.num_key_value_heads = config.num_attention_heads
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    spec.tokenizer().save_pretrained(folder)
    return folder


def perplexity(model: Any, tokenizer: Any, text: Path) -> float:
    """The one function that scores both sides."""
    items = list(Perplexity("ppl", str(text), window=WINDOW).run(model, tokenizer))
    return math.exp(sum(i.score * i.weight for i in items) / sum(i.weight for i in items))


def ours(row: Golden, stored: bool = False) -> float:
    """Perplexity of our compressed model, its real numbers in float32 or as an artifact stores them."""
    point, shared = Setup.of(row), Shared()
    model = point.spec.load()
    view, key = View(model), point.spec.fingerprint
    plan = equal_shares(
        view, point.budget, "nominal", "blocks", point.spec.storage if stored else torch.float32
    )
    if point.allocator != Uniform():
        plan = allocate(point.allocator, point.method, view, plan, point.calib, key, shared)
    compress(point.method, view, plan, point.calib, key, shared)
    return perplexity(model, point.spec.tokenizer(), texts(row["model"])[1])


def theirs(row: Golden, reference: Path) -> float:
    """Perplexity of the released code's compressed model, on the same tokens."""
    point = Setup.of(row)
    _, peer = PEERS[driver(row)]
    model = peer(reference, point.spec.load(), point.calib.tokens, **row["peer"])
    return perplexity(model, point.spec.tokenizer(), texts(row["model"])[1])


@cache
def dense(model: str) -> float:
    """Perplexity of the parent."""
    spec = ModelSpec(path_of({"model": model}))
    return perplexity(spec.load(), spec.tokenizer(), texts(model)[1])


def measure(row: Golden, reference: Path | None) -> Golden:
    """The row with what was measured now."""
    new = dict(row)
    if reference is not None:
        folder = PEERS[driver(row)][0]
        new |= {"repository": REPOSITORIES[folder], "commit": commit(reference, folder)}
        new |= {"reference": round(theirs(row, reference), 6)}
    new |= {"ours": round(ours(row), 6), "stored": round(ours(row, stored=True), 6)}
    new |= {"dense": round(dense(row["model"]), 6)}
    return new | {"difference": round(new["ours"] / new["reference"] - 1, 7)}


def agrees(row: Golden) -> bool:
    """Whether ours is within the row's tolerance of the reference."""
    return bool(abs(row["ours"] / row["reference"] - 1) <= row["tolerance"])


def faults(row: Golden) -> list[str]:
    """What is wrong with a stored row, in words."""
    off = row["ours"] / row["reference"] - 1
    found = {
        "commit is no whole hash": len(row["commit"]) != 40,
        "difference is not that of ours and the reference": abs(row["difference"] - off) > 1e-6,
        "a wider tolerance needs its measured reason": row["tolerance"] > 0.005 and not row["why"],
        "ours is not within the tolerance": not agrees(row),
    }
    return [words for words, wrong in found.items() if wrong]


HEAD = ("model", "method", "setting", "reference", "ours", "difference", "tolerance", "stored", "note")


def cells(row: Golden, notes: Mapping[str, int]) -> list[str]:
    """A row's texts."""
    return [
        row["model"],
        row["method"],
        row["setting"],
        f"{row['reference']:.4f}",
        f"{row['ours']:.4f}",
        f"{row['difference']:+.3%}",
        f"{row['tolerance']:.1%}",
        f"{row['stored']:.4f}",
        str(notes[row["why"]]) if row["why"] else "",
    ]


def numbered(rows: Sequence[Golden]) -> dict[str, int]:
    """Explanations and their footnote numbers."""
    return {why: i for i, why in enumerate(dict.fromkeys(r["why"] for r in rows if r["why"]), 1)}


def table(rows: Sequence[Golden]) -> Table:
    """For the terminal: what disagrees is red."""
    notes = numbered(rows)
    made = Table(*HEAD, title="Perplexity of the released code and of ours, on the same tokens")
    for row in rows:
        made.add_row(*cells(row, notes), style="" if agrees(row) else "red")
    return made


def markdown(rows: Sequence[Golden]) -> str:
    """For the README: the table, its notes, and the commits."""
    notes = numbered(rows)
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    lines += [f"| {' | '.join(cells(row, notes))} |" for row in rows]
    lines += ["", *(f"{i}. {why}" for why, i in notes.items()), ""]
    parents = {r["model"]: r["dense"] for r in rows}
    lines += ["Dense: " + ", ".join(f"{name} {value:.4f}" for name, value in parents.items()) + ".", ""]
    commits = {r["repository"]: r["commit"] for r in rows}
    lines += ["References: " + ", ".join(f"{name} at `{c[:12]}`" for name, c in commits.items()) + "."]
    lines += ["", "No row: " + "; ".join(f"{name} ({reason})" for name, reason in without().items()) + "."]
    return "\n".join(lines)


def write(rows: Sequence[Golden]) -> None:
    """Into parity.json and between the marks of README.md."""
    data = json.loads(GOLDEN.read_text()) | {"torch": torch.__version__, "rows": rows}
    GOLDEN.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(f"{before}{MARKS[0]}\n\n{markdown(rows)}\n\n{MARKS[1]}{after}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="recompute and compare, write nothing")
    action.add_argument("--write", action="store_true", help="recompute and write parity.json and README.md")
    parser.add_argument("--reference", type=Path, help="folder with checkouts: " + ", ".join(REPOSITORIES))
    parser.add_argument("--only", default="", help="rows whose model, driver or setting contains this text")
    args = parser.parse_args()
    console, rows = Console(width=160), golden()
    wanted = [args.only in f"{r['model']} {driver(r)} {r['setting']}" for r in rows]
    for i, row in track(list(enumerate(rows)), "Recomputing", console=Console(stderr=True)):
        if wanted[i] and here(row):
            rows[i] = measure(row, args.reference)
            if args.write:
                write(rows)
        elif wanted[i]:
            console.print(
                f"{row['model']} {row['method']} {row['setting']}: the model is not here, kept as is"
            )
    shown = [row for row, keep in zip(rows, wanted, strict=True) if keep]
    console.print(table(shown))
    return 0 if all(agrees(row) for row in shown) else 1


if __name__ == "__main__":
    sys.exit(main())
