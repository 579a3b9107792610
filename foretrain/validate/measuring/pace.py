"""How fast a processor is at this moment, by a piece of work of a fixed size.

On a machine that others share, a core is slowed down by what runs beside it for seconds at a time, by a half and more, and no average over
one measurement tells. The same piece of work, timed beside every measurement, does.
"""

from __future__ import annotations

import functools
import time
from typing import Any

SIDE, COPIED = 256, 2**20
"""Of a square product, and elements of a copy: both in fp32 and within the second cache or the third."""


def pace_s() -> float:
    """Return the seconds that the reference work takes now, on one thread of a CPU: about a millisecond."""
    left, right, rows = _operands()
    began_s = time.perf_counter()
    _ = left @ right
    rows.clone()
    _ = left @ right
    return time.perf_counter() - began_s


@functools.cache
def _operands() -> tuple[Any, Any, Any]:
    import torch  # noqa: PLC0415 - torch is heavy and optional

    made = torch.ones(SIDE, SIDE), torch.ones(SIDE, SIDE), torch.ones(COPIED)
    for _ in range(3):
        _ = made[0] @ made[1]
        made[2].clone()
    return made
