"""The most memory that a process held since it was last asked."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import torch

from foretrain.validate.measuring.processor import give_back

PROC = Path("/proc/self")
KIB = 1024


def reset_peaks(device: str) -> None:
    """Begin to watch: what earlier cases left is given back first."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        give_back()
    with contextlib.suppress(OSError):
        (PROC / "clear_refs").write_text("5", encoding="ascii")  # proc(5): resets the peak of the resident set


def peaks(device: str) -> dict[str, int | None]:
    """Return the bytes that tensors took and the allocator reserved on a GPU, and the resident set of the process; null where unknown."""
    gpu = device == "cuda"
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated() if gpu else None,
        "reserved_bytes": torch.cuda.max_memory_reserved() if gpu else None,
        "rss_bytes": _resident(),
    }


def _resident() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in (PROC / "status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIB
    return None


def most(each: list[dict[str, int | None]]) -> dict[str, int | None]:
    """Return the most of every process, null where none knows."""
    return {name: max((one[name] for one in each if one[name] is not None), default=None) for name in each[0]}  # type: ignore[type-var]
