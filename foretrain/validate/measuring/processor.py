"""Has a process use a processor as every rank of a job on it does, so that its times hang on shapes and not on values or on the system.

Training on a GPU keeps the memory that it frees, and does arithmetic on the smallest numbers at full speed; on a processor a page that
comes anew from the system costs microseconds, and an operation on a subnormal number a hundred cycles.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""
NEVER = 2**31 - 1


def settle() -> None:
    """Run torch on one thread, take subnormal numbers for zero where the processor can, and keep freed memory."""
    import torch  # noqa: PLC0415 - torch is heavy and optional

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Return whether the process now keeps what it frees; other systems than Linux with the GNU C library are left as they are."""
    mallopt = _of_the_library("mallopt")
    return mallopt is not None and bool(mallopt(TRIM_THRESHOLD, NEVER)) and bool(mallopt(MMAP_MAX, 0))


def give_back() -> None:
    """Give the memory that the process keeps without need back to the system, so that what it holds is what it uses."""
    trim = _of_the_library("malloc_trim")
    if trim is not None:
        trim(0)


def _of_the_library(name: str) -> Any:
    """Return a function of the C library; None where it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
