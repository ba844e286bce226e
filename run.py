"""One cell, or with -m a grid of them: `python run.py -m method=svd,slicegpt budget=0.3`."""

import logging
import os
import sys
import traceback
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve whatever else runs here

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

FAILED: list[str] = []  # what went wrong in this process
PREFIXES = ("crunchmark.", "methods.", "tasks.")


def check_targets(node: Any) -> None:
    """Every `_target_` must start with one of ours.

    Raises:
        ValueError: one does not; names it.
    """
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not str(target).startswith(PREFIXES):
            raise ValueError(f"_target_={target!r} is refused; valid: a name under {', '.join(PREFIXES)}")
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        check_targets(child)


def say(cell: Any, rows: list[dict[str, Any]]) -> None:
    """One line per finished cell."""
    row = rows[-1] if rows else {}
    if row.get("reason"):
        text = f"{row['state']}: {row['reason']}"
    else:
        text = f"{row['achieved_bytes']:.1%} removed, {row['file_bytes'] / 1e6:.2f} MB on disk"
    Console(stderr=True).print(f"{cell.label} budget={cell.budget:g}: {text}", highlight=False)


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """Make the cell's objects from the config and run it."""
    from crunchmark.pipeline import Cell, Runner, cell_from

    config = OmegaConf.to_container(cfg, resolve=True)
    try:
        check_targets(config)
        made = {name: instantiate(spec) for name, spec in config["task"].items()}
        cell: Cell = cell_from(config, instantiate(config["method"]), made)
        say(cell, Runner.of(config).run(cell))
    except (ValueError, OSError) as error:
        fail(f"error: {error}")
    except Exception as error:
        fail(f"{traceback.format_exc()}error: {type(error).__name__}: {error}")


def fail(text: str) -> None:
    """Say it, let the sweep go on, exit with 1 at the end."""
    FAILED.append(text)
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
    sys.exit(1 if FAILED else 0)
