"""From `--slow`, `--jitter` and `--samples` to a disturbance."""

from __future__ import annotations

import re

from foretrain.errors import UsageError, nearest, shortened
from foretrain.sim.disturbance import CALM, SAMPLES, Disturbance

WHERE = {"rank": "ranks", "node": "nodes", "link": "links"}
_SLOW = re.compile(r"(?P<where>\w+)=(?P<number>\d{1,9}):(?P<factor>\d+(\.\d+)?)")


def read_disturbance(slow: tuple[str, ...], jitter: float, samples: int | None) -> Disturbance:
    """Return what the options say is slow or left to chance.

    Raises:
        UsageError, PlanError: where an option says nothing, or the same thing twice.
    """
    if not slow and not jitter and samples is None:
        return CALM
    found: dict[str, dict[int, float]] = {name: {} for name in WHERE.values()}
    for text in slow:
        match = _SLOW.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"--slow {shortened(text)} slows nothing down; write where and how many times, such as rank=3:1.2 or link=0:2")
        where, number = match["where"], int(match["number"])
        if where not in WHERE:
            raise UsageError(f"--slow {shortened(text)}: {where!r} is no place; use one of {', '.join(WHERE)}{nearest(where, WHERE)}")
        if number in found[WHERE[where]]:
            raise UsageError(f"--slow {where}={number} is given twice; leave out one of them")
        found[WHERE[where]][number] = float(match["factor"])
    return Disturbance(**found, jitter=jitter, samples=SAMPLES if samples is None else samples)
