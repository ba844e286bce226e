"""What a row says of where it was made: commit, versions, device, threads, seconds, peak memory."""

import ctypes
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "lm-eval", "hydra-core", "datasets", "numpy")
ROOT = Path(__file__).resolve().parents[1]


def _git(*args: str) -> str:
    try:
        done = subprocess.run(
            ["git", *args], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@cache
def facts() -> dict[str, Any]:
    """Commit, dirty flag, versions, processor, threads; the same for a whole process."""
    return {
        "git": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "machine": platform.machine(),
        "processor": processor(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }


def processor() -> str:
    """What the processor calls itself."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.processor()
    return platform.processor()


def hardware(device: str) -> dict[str, Any]:
    """What decides how fast something runs on the device, besides the something."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": version("torch"),
    }


class Others:
    """How many processors were busy with something else than this process since this was made."""

    def __init__(self) -> None:
        self._start = _processor_seconds()

    def busy(self) -> float | None:
        """On the average; None where the system does not tell."""
        now = _processor_seconds()
        if now is None or self._start is None:
            return None
        wall, everyone, own = (b - a for a, b in zip(self._start, now, strict=True))
        if wall <= 0 or everyone < own / 2:  # a sandbox whose counters stand still
            return None
        return max(0.0, everyone - own) / wall


def _processor_seconds() -> tuple[float, float, float] | None:
    """Seconds: the clock's, what all processors worked, what they worked for this process."""
    try:
        ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, *interrupts = ticks  # idle and waiting for a disk are no work
    work = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), work, sum(os.times()[:2])


def check_device(device: str) -> torch.device:
    """The torch device of that name.

    Raises:
        ValueError: it is no device, or it is cuda where there is none.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r} is unknown; valid: cpu, cuda, cuda:0") from None
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r} is not supported; valid: cpu, cuda, cuda:0")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device} but this machine offers torch no GPU; valid: cpu")
    return found


def trim() -> None:
    """Give freed memory back to the system, where the C library keeps it for later (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Stage:
    """Seconds and peak resident bytes of one stage."""

    seconds: float = 0.0
    peak_bytes: int = 0


_under_way: list[Stage] = []


@contextmanager
def measured() -> Iterator[Stage]:
    """Measure what runs inside. The peak is the process's resident high-water mark since entering."""
    stage, start = Stage(), time.perf_counter()
    _note_peaks()  # the mark is one for all: a stage inside another starts it anew
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: start a new high-water mark
    _under_way.append(stage)
    try:
        yield stage
    finally:
        stage.seconds = time.perf_counter() - start
        _note_peaks()
        _under_way.remove(stage)


def _note_peaks() -> None:
    """Keep the mark for every stage under way."""
    mark = _high_water()
    for stage in _under_way:
        stage.peak_bytes = max(stage.peak_bytes, mark)


def _high_water() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
