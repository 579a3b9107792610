"""Repeats of a case, spread over a run of a suite: what disturbs a machine for seconds then disturbs a part of each case, not all of one.

A processor that others use too slows down for many seconds at a time, which no number of repeats in a row averages out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from foretrain.validate.measuring.timer import spread_of

VISITS = {"cpu": 3, "cuda": 1}
"""How often each case of a suite is come back to."""


def visits_of(data: Mapping[str, Any]) -> int:
    """Return how often the case of a `step` record was visited; files of earlier versions do not say, and hold whole measurements."""
    return int(data.get("visits", max(VISITS.values()))) if "step_s" in data else 0


def pooled(held: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of one more visit together with those of earlier ones: times are of all repeats, the rest is as first measured."""
    if not visits_of(held):
        return {**found, "visits": 1}
    samples = {name: [*held["samples"][name], *values] for name, values in found["samples"].items()}
    spreads = {name: asdict(spread_of(values)) for name, values in samples.items() if name != "reference_s"}
    kept = {name: value for name, value in held.items() if name != "interrupted"}
    return {**kept, **spreads, "samples": samples, "visits": visits_of(held) + 1}
