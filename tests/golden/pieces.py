"""Pieces of released code that do not run over a whole model, each beside ours on layers drawn at random.

python -m tests.golden.pieces --check              recompute ours, print the table, exit 1 where it disagrees
python -m tests.golden.pieces --write              the same, then write ours into pieces.json and README.md
python -m tests.golden.pieces --write --reference DIR   the reference's numbers too, from checkouts in DIR
"""

import argparse
import json
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.peers import REPOSITORIES, commit
from benchmarks.peers.pieces import PIECES
from crunchmark import Fisher, Gram, Layer, NormalFloat, NormalGrid, Room, assign, divided, grid, to_normal
from crunchmark.terms.normal_float import GRIDS
from methods.gptq import GPTQ
from methods.lq_lora import LQLoRA
from methods.squeezellm import SqueezeLLM
from tests.golden.parity import agrees, numbered
from tests.unit.method_recipe import inputs, layer, normal

HERE = Path(__file__).parent
GOLDEN = HERE / "pieces.json"
MARKS = ("<!-- table: python -m tests.golden.pieces --write -->", "<!-- end of pieces -->")
OUT, WIDE, TOKENS, RANK, LAYERS = 64, 256, 1024, 8, 6
SAME = 1e-3  # relative: two weights are the same where codes are; float16 scales are off by half of it


class Sample(NamedTuple):
    """One layer: weights with heavy tails, inputs of unequal scale, squared gradients."""

    seed: int
    weight: Tensor  # (OUT, WIDE)
    inputs: Tensor  # (TOKENS, WIDE)
    gram: Gram
    fisher: Tensor  # (OUT, WIDE), in the digits of bfloat16


@cache
def sample(seed):
    made = layer(seed, OUT, WIDE, TOKENS)
    log = normal(seed + 50, OUT, 1) + normal(seed + 51, 1, WIDE) + 0.5 * normal(seed + 52, OUT, WIDE)
    return Sample(seed, made.weight, inputs(seed, WIDE, TOKENS), made[Gram], log.exp().bfloat16().float())


def grids(bits):
    """Of so many bits a code, or all."""
    return [grid for grid in GRIDS if bits in (None, grid.bits)]


def parts(at):
    """The layers of the integer programme, of unequal size."""
    return [sample(at.seed + i).weight * 2.0 ** (i % 4 - 2) for i in range(LAYERS)]


def of(at):
    return Layer("piece", at.weight, {Gram: at.gram, Fisher: Fisher(at.fisher.bfloat16())})


def our_means(at, bits):
    method = SqueezeLLM(sensitive=0.0, outliers=0.0)
    return method.compress(of(at), Room(0, bits / 16, torch.float32)).dense()


def starts(at, bits):
    """What ours begins with: rounding's levels and parts of the row, (OUT, 2^bits) each."""
    scale, zero = grid(at.weight, bits, sym=False)  # (OUT,) each
    plain = (torch.arange(2**bits) - zero.float()[:, None]) * scale.float()[:, None]
    return plain, divided(at.weight, at.fisher, 2**bits).float()


def our_floats(at, bits):
    return torch.stack([to_normal(at.weight, g).value().view_as(at.weight) for g in grids(bits)])


def our_bits(at):
    return sum(8 * NormalFloat.size((OUT, WIDE), g) for g in grids(None)) / (len(GRIDS) * OUT * WIDE)


def our_pair(at, grid, fisher):
    """The room is that of the grid and of RANK, in float32."""
    room = Room(
        NormalFloat.size((OUT, WIDE), NormalGrid(*grid)) + 4 * RANK * (OUT + WIDE), None, torch.float32
    )
    return LQLoRA(rank=RANK, share=0.9, fisher=fisher).compress(of(at), room).dense()


def our_programme(at, bits, offsets=True):
    """On the costs and sizes in bits of our own grids; offsets: of 32 bits a layer, within the limit."""
    rows = []
    for weight in parts(at):
        costs = [float((to_normal(weight, g).value().view_as(weight) - weight).square().sum()) for g in GRIDS]
        sizes = [8.0 * NormalFloat.size((OUT, WIDE), g) for g in GRIDS]
        rows.append(sorted(zip(sizes, costs, strict=True)))
    sizes, costs = ([[pair[i] for pair in row] for row in rows] for i in (0, 1))
    limit = bits * LAYERS * OUT * WIDE + (0 if offsets else 32 * LAYERS)
    return assign(costs, sizes, limit, 60.0).cost


def our_columns(at, bits, group, sym, act_order):
    return GPTQ(group=group, sym=sym, bits=bits, act_order=act_order).rounded(of(at), bits, group).dense()


OURS = {
    "squeezellm: k-means of rows": our_means,
    "lq_lora: NormalFloat": our_floats,
    "lq_lora: bits per weight": our_bits,
    "lq_lora: Q + L": our_pair,
    "lq_lora: integer programme": our_programme,
    "gptq: columns": our_columns,
}


def theirs(row, reference):
    """What the reference makes of the row's layer: weights or a number."""
    piece, at, how, peer = row["piece"], sample(row["layer"]), row["of"], row["peer"]
    run, many = PIECES[piece][1], grids(how.get("bits"))
    if piece == "squeezellm: k-means of rows":
        more = {"begin": starts(at, **how)} if peer.get("begin") else peer
        return run(reference, at.weight, at.fisher, **how, **more)
    if piece == "gptq: columns":
        return run(reference, at.weight, at.inputs, **how, **peer)
    if piece == "lq_lora: Q + L":
        return run(reference, at.weight, at.fisher if how["fisher"] else None, how["grid"], RANK, **peer)
    if piece == "lq_lora: integer programme":
        return run(reference, parts(at), GRIDS, how["bits"])
    values, sizes = zip(*(run(reference, at.weight, grid) for grid in many), strict=True)
    return torch.stack(values) if piece == "lq_lora: NormalFloat" else sum(sizes) / len(sizes)


def ours(row):
    """What ours makes of it."""
    return OURS[row["piece"]](sample(row["layer"]), **row["of"])


def number(row, found):
    """Of weights (..., out, in) the squared error relative to the layer, weighed as the piece weighs it."""
    if not isinstance(found, Tensor):
        return float(found)
    at, weight = sample(row["layer"]), sample(row["layer"]).weight.double()
    off = weight - found.double()  # (..., out, in)
    if row["piece"] == "gptq: columns":
        return float(((off @ at.gram.value) * off).sum() / ((weight @ at.gram.value) * weight).sum())
    even = row["piece"] == "lq_lora: NormalFloat" or not row["of"].get("fisher", True)
    prices = torch.ones_like(weight) if even else at.fisher.double()
    return float((prices * off.square()).sum() / (prices * weight.square()).expand_as(off).sum())


def same(one, other):
    """Share of the weights that are equal but for the digits of their scale; numbers have none."""
    if not isinstance(one, Tensor):
        return None
    return round(float(((one - other).abs() <= SAME * other.abs() + 1e-9).double().mean()), 4)


def measure(row, reference):
    """The row with what was measured now."""
    found, new = ours(row), dict(row)
    if reference is not None:
        folder = PIECES[row["piece"]][0]
        new |= {"repository": REPOSITORIES[folder], "commit": commit(reference, folder)}
        peer = theirs(row, reference)
        new |= {"reference": float(f"{number(row, peer):.7g}"), "same": same(peer, found)}
    new["ours"] = float(f"{number(row, found):.7g}")
    return new | {"difference": round(new["ours"] / new["reference"] - 1, 6)}


HEAD = ("piece", "setting", "reference", "ours", "difference", "tolerance", "same weights", "note")


def cells(row, notes):
    """A row's texts."""
    texts = [row["piece"], row["setting"], f"{row['reference']:.5g}", f"{row['ours']:.5g}"]
    texts += [f"{row['difference']:+.3%}", f"{row['tolerance']:.2%}"]
    texts += ["" if row["same"] is None else f"{row['same']:.2%}"]
    return [*texts, str(notes[row["why"]]) if row["why"] else ""]


def markdown(rows):
    """For the README: the table, its notes, and the commits."""
    notes = numbered(rows)
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    lines += [f"| {' | '.join(cells(row, notes))} |" for row in rows]
    lines += ["", *(f"{i}. {why}" for why, i in notes.items()), ""]
    commits = {r["repository"]: r["commit"] for r in rows}
    return "\n".join(
        [*lines, "References: " + ", ".join(f"{n} at `{c[:12]}`" for n, c in commits.items()) + "."]
    )


def golden():
    """The rows of pieces.json."""
    return json.loads(GOLDEN.read_text())["rows"]


def write(rows):
    """Into pieces.json and between the marks of README.md."""
    data = {"torch": torch.__version__, "rows": rows}
    GOLDEN.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    before, rest = (HERE / "README.md").read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    (HERE / "README.md").write_text(f"{before}{MARKS[0]}\n\n{markdown(rows)}\n\n{MARKS[1]}{after}")


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="recompute and compare, write nothing")
    action.add_argument("--write", action="store_true", help="recompute and write pieces.json and README.md")
    folders = ", ".join(dict.fromkeys(folder for folder, _ in PIECES.values()))
    parser.add_argument("--reference", type=Path, help=f"folder with checkouts: {folders}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measure(row, args.reference) for row in track(golden(), "Recomputing", console=Console(stderr=True))
    ]
    if args.write:
        write(rows)
    notes, made = numbered(rows), Table(*HEAD, title="Pieces of released code and ours, on the same layers")
    for row in rows:
        made.add_row(*cells(row, notes), style="" if agrees(row) else "red")
    Console(width=160).print(made)
    return 0 if all(map(agrees, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
