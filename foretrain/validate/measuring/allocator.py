"""Has a process keep the memory that it frees, as training on a GPU does: a page that comes anew from the system costs microseconds."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Return whether the process now keeps what it frees; other systems than Linux with the GNU C library are left as they are."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(TRIM_THRESHOLD, NEVER)) and bool(mallopt(MMAP_MAX, 0))
