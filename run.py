"""One cell, or with -m a grid of them: `python run.py -m method=svd,slicegpt budget=0.3`."""

import logging
import os
import sys

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve whatever else runs here

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    from analysis.usage import main as usage  # every group and option, before anything heavy is loaded

    sys.exit(usage())

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from launch import check_choices, check_mode, check_progress, check_targets, fail, guarded, made, runner, say


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: DictConfig) -> bool:
    """Make the cell's objects from the config, run it, tell the tracker; false: there was no cell to run."""
    try:
        config = OmegaConf.to_container(cfg, resolve=True)
        check_targets(config)
        check_mode(HydraConfig.get())
        check_progress(config["progress"])
        check_choices(config, HydraConfig.get().runtime.choices)
        from crunchmark.cell import cell_from
        from crunchmark.interface import Allocator, Compensator, Method, ModelMethod
        from crunchmark.task import Task
        from crunchmark.track import Tracker

        tracker = made(config["track"], "track", Tracker)
        tasks = {name: made(spec, f"task.{name}", Task) for name, spec in config["task"].items()}
        method = made(config["method"], "method", Method, ModelMethod)
        allocate = made(config["allocate"], "allocate", Allocator)
        compensate = made(config["compensate"], "compensate", Compensator)
        cell = cell_from(config, method, tasks, allocate, compensate)
        cells = runner(config["store"], config["cache"]["dir"], config["cache"]["max_gb"])
        cell.key  # noqa: B018  # asks for the model's files and the calibration source: what is not there shows now
    except Exception as error:
        fail(error, code=2)
        return False
    try:
        try:
            say(cell, cells.run(cell), config["progress"] == "quiet")
        finally:
            for each in (cell.dense(), cell):
                named = {**config, "label": each.label, "budget": each.budget}
                tracker.log(named, cells.store.cell_rows(each.study, each.key))
    except Exception as error:
        fail(error, code=1)
    return True


if __name__ == "__main__":
    logging.captureWarnings(True)
    sys.exit(guarded(main))
