"""Has a process use a processor as every rank of a job on it does, so that its times hang on shapes and not on values or on the system.

Training on a GPU keeps the memory that it frees, and does arithmetic on the smallest numbers at full speed; on a processor a page that
comes anew from the system costs microseconds, and an operation on a subnormal number a hundred cycles.
"""

from __future__ import annotations

import ctypes
import sys

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
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(TRIM_THRESHOLD, NEVER)) and bool(mallopt(MMAP_MAX, 0))
