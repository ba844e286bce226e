"""What Hydra asks when conf/ has no such file: any task of lm-eval is one, any other name is an error.

So `task=arc_easy,hellaswag` works although conf/task/ holds neither, and a misspelt method, model, task,
calibration or tracker is one line with the nearest names. Hydra finds this because the project's root is on
sys.path; conf/config.yaml names it behind the real files: `hydra: {searchpath: ["lmeval://any"]}`.
"""

from pathlib import Path

from hydra.core.object_type import ObjectType
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from tasks.index import known, nearest

CONF = Path(__file__).resolve().parents[1] / "conf"


class LmEvalConfigSource(ConfigSource):
    """A config group `task` with one entry for each lm-eval name; asked last, when no file has the name."""

    @staticmethod
    def scheme() -> str:
        """The prefix in the search path."""
        return "lmeval"

    def available(self) -> bool:
        """Always: the index is made when a name is asked for."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Only `task`."""
        return config_path.rstrip("/") == "task"

    def is_config(self, config_path: str) -> bool:
        """True for names lm-eval knows.

        Raises:
            ConfigCompositionException: Nobody knows the name in this group; the message has the nearest.
        """
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        nobodys = not group or group.split("/")[0] == "hydra" or name == "None"
        if nobodys or not (CONF / group).is_dir():
            return False
        if group != "task" or name not in known():
            raise ConfigCompositionException(unknown(group, name))
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        """The task's spec, as conf/task/NAME.yaml would hold it."""
        name = config_path.removesuffix(".yaml").rpartition("/")[2]
        spec = {"_target_": "tasks.lm.LmEval", "name": name, "limit": "${limit}", "batch": "${batch}"}
        return ConfigResult(
            self.provider, self.full_path(), OmegaConf.create({name: spec}), {"package": None}
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Nothing: fourteen thousand names help nobody in an error message or a completion."""
        return []


def unknown(group: str, name: str) -> str:
    """The one line that says a name is wrong in its group, what is near it and what there is."""
    ours = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    near = nearest(name, [*ours, *known()] if group == "task" else ours)
    parts = [f"{group}={name!r} is unknown"]
    parts += [f"nearest: {', '.join(near)}"] if near else []
    more = " or any task, group or tag of lm-eval" if group == "task" else ""
    return "; ".join([*parts, f"valid: {', '.join(ours)}{more}"])
