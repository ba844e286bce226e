"""Joules, where the machine counts them: RAPL of its processors, NVML of a GPU; else a reason why not."""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

POWERCAP = Path("/sys/class/powercap")


class Energy:
    """A counter of a device. `reason` says why there is none; then `read` gives None."""

    def __init__(self, device: str, powercap: Path = POWERCAP) -> None:
        self.reason = ""
        self._zones: list[Path] = []
        self._gpu: Callable[[], float] | None = None
        if device.startswith("cuda"):
            self._find_gpu(torch.device(device))
        else:
            self._find_zones(powercap)

    def read(self) -> list[float] | None:
        """Joules of each counter since some time before."""
        if self.reason:
            return None
        if self._gpu is not None:
            return [self._gpu()]
        return [_micro(zone / "energy_uj") / 1e6 for zone in self._zones]

    def since(self, before: list[float] | None) -> float | None:
        """Joules since an earlier reading; a counter that began anew meanwhile is put right."""
        now = self.read()
        if now is None or before is None:
            return None
        spent = [b - a for a, b in zip(before, now, strict=True)]
        turns = [_micro(zone / "max_energy_range_uj") / 1e6 for zone in self._zones] or [0.0]
        return sum(j if j >= 0 else j + turn for j, turn in zip(spent, turns, strict=True))

    def _find_zones(self, powercap: Path) -> None:
        """The processors' packages: `intel-rapl:0`, but not their parts `intel-rapl:0:1`.

        Nor `psys`, which some machines have beside them: it counts the packages once more, and the rest too.
        """
        found = sorted(powercap.glob("*-rapl:*")) if powercap.is_dir() else []
        packages = [zone for zone in found if zone.name.count(":") == 1 and _name(zone) != "psys"]
        for zone in packages:
            with suppress(OSError, ValueError):
                _micro(zone / "energy_uj")
                self._zones.append(zone)
        if not self._zones:
            self.reason = "its counters may not be read" if packages else "no RAPL counter here"

    def _find_gpu(self, device: torch.device) -> None:
        """The GPU's counter through pynvml, if that is installed."""
        try:
            nvml: Any = import_module("pynvml")
            nvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(device).uuid
            handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except ImportError:
            self.reason = "pynvml is not installed"
        except Exception as error:  # NVML's own kinds; all mean the counter can not be had
            self.reason = f"no NVML counter: {type(error).__name__}"
        else:
            self._gpu = lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3


def _name(zone: Path) -> str:
    """What the zone calls itself; empty where it does not say."""
    with suppress(OSError):
        return (zone / "name").read_text().strip()
    return ""


def _micro(path: Path) -> int:
    return int(path.read_text())
