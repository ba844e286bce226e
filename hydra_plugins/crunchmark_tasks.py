"""Lets `task=arc_easy,hellaswag` name any task of lm-eval although conf/task/ has no such file.

Hydra finds this because the project's root is on sys.path; conf/config.yaml names it after the real files:
`hydra: {searchpath: ["lmeval://any"]}`.
"""

from hydra.core.object_type import ObjectType
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from tasks.index import known, unknown

GROUP = "task/"


class LmEvalConfigSource(ConfigSource):
    """A config group `task` with one entry for each lm-eval name; asked only when conf/task/ has no file."""

    @staticmethod
    def scheme() -> str:
        """The prefix in the search path."""
        return "lmeval"

    def available(self) -> bool:
        """Always: the index is made when a name is asked for."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Only `task`."""
        return config_path.rstrip("/") + "/" == GROUP

    def is_config(self, config_path: str) -> bool:
        """True for names lm-eval knows.

        Raises:
            ConfigCompositionException: A task nobody knows; the message names the nearest.
        """
        if not config_path.startswith(GROUP):
            return False
        name = _name(config_path)
        if name not in known():
            raise ConfigCompositionException(unknown(name))
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        """The task's spec, as conf/task/NAME.yaml would hold it."""
        name = _name(config_path)
        spec = {"_target_": "tasks.lm.LmEval", "name": name, "limit": "${limit}", "batch": "${batch}"}
        return ConfigResult(
            self.provider, self.full_path(), OmegaConf.create({name: spec}), {"package": None}
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Nothing: fourteen thousand names help nobody in an error message or a completion."""
        return []


def _name(config_path: str) -> str:
    return config_path.removeprefix(GROUP).removesuffix(".yaml")
