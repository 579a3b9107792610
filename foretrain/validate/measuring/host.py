"""The host as it is found: processor, memory, load. Linux's files first, psutil (optional) where there are none."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import time
from pathlib import Path
from typing import Any

from foretrain.validate.measuring.counters import UnavailableError

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def cpu_model(proc: Path = PROC) -> str:
    """Return the processor's name."""
    for line in _lines(proc / "cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model"} and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float | None:
    """Return the machine's mean run queue of the last minute; None where the system keeps none."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def clock_hz(proc: Path = PROC) -> float | None:
    """Return the mean clock of the cores now; None where it is not shown."""
    found = [float(line.partition(":")[2]) for line in _lines(proc / "cpuinfo") if line.startswith("cpu MHz")]
    return 1e6 * sum(found) / len(found) if found else None


def available_bytes(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """Return the bytes that can be allocated without swapping, within the limit of the container.

    Raises:
        UnavailableError: where the system does not show them and psutil is missing.
    """
    free = _meminfo(proc).get("MemAvailable")
    if free is None:
        free = int(_psutil("free memory").virtual_memory().available)
    return min(free, _container_bytes(cgroup) or free)


def total_bytes(proc: Path = PROC) -> int:
    """Return the machine's memory, or raise UnavailableError as `available_bytes` does."""
    found = _meminfo(proc).get("MemTotal")
    return found if found is not None else int(_psutil("memory").virtual_memory().total)


def shares(window_s: float = 0.5, proc: Path = PROC) -> tuple[float, float]:
    """Return the shares of all processor time that ran and that a hypervisor took away, while this process slept for `window_s`.

    Raises:
        UnavailableError: where the system does not count them.
    """
    before = _ticks(proc)
    time.sleep(window_s)
    spent = [after - earlier for after, earlier in zip(_ticks(proc), before, strict=True)]
    total = max(1, sum(spent))
    idle, stolen = spent[3] + spent[4], spent[7]
    return (total - idle - stolen) / total, stolen / total


def _ticks(proc: Path) -> list[int]:
    """User, nice, system, idle, waiting, interrupts, soft interrupts, stolen. **Source:** proc_stat(5)."""
    for line in _lines(proc / "stat"):
        if line.startswith("cpu "):
            found = [int(one) for one in line.split()[1:9]]
            return found + [0] * (8 - len(found))
    raise UnavailableError(f"{proc / 'stat'} does not count processor time")


def _meminfo(proc: Path) -> dict[str, int]:
    """Return the machine's memory in bytes by name."""
    parts = (line.split() for line in _lines(proc / "meminfo"))
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in parts if len(words) > 1 and words[1].isdigit()}


def _container_bytes(cgroup: Path) -> int | None:
    """Return what a container's limit leaves; None without a limit."""
    with contextlib.suppress(OSError, ValueError):
        limit = (cgroup / "memory.max").read_text(encoding="utf-8").strip()
        if limit != "max":
            return max(0, int(limit) - int((cgroup / "memory.current").read_text(encoding="utf-8")))
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _psutil(what: str) -> Any:
    try:
        return importlib.import_module("psutil")
    except ImportError as error:
        raise UnavailableError(f"{what} is not shown here, and psutil is not installed; pip install 'foretrain[calibrate]'") from error
