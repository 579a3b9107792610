"""Chance: every pass takes a little more or less than its mean, and a step is one draw of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp
from random import Random

from foretrain.sim.rank import Rank, add
from foretrain.sim.segment import HOST, Leg, Segment, joined

PERCENTILES = (5, 50, 95)


class Jitter:
    """Draws a factor of mean 1 for each pass of each rank, of which the logarithm is normal with `sigma`.

    Only kernels are drawn: launches and transfers take what they take. **Source:** Johnson, Kotz, Balakrishnan, Continuous Univariate
    Distributions 1 (1994), chapter 14 (the lognormal of log-mean -sigma² / 2 has mean 1).
    """

    def __init__(self, sigma: float, seed: int) -> None:
        self.sigma = sigma
        self.chance = Random(seed)

    def drawn(self, rank: Rank, segment: Segment) -> Segment:
        """Return a segment with the kernels of this pass drawn, and account what they take beyond their mean to the rank."""
        factor = exp(self.chance.gauss(0.0, self.sigma) - self.sigma**2 / 2)
        legs = tuple(_drawn(leg, factor) for leg in segment.legs)
        whole = joined(legs, segment.name)
        for name, seconds in whole.class_s.items():
            add(rank.extra, name, seconds - segment.class_s[name])
        return Segment(
            name=segment.name, index=segment.index, legs=legs, ops=segment.ops, device_s=whole.device_s, lead_s=whole.lead_s,
            launch_s=whole.launch_s, class_s=whole.class_s, joules=segment.joules, flop=segment.flop, hidden_s=segment.hidden_s,
            peak_bytes=segment.peak_bytes, delta_bytes=segment.delta_bytes, on_port=segment.on_port, on_network=segment.on_network,
            clock_hz=segment.clock_hz,
        )  # fmt: skip


def _drawn(leg: Leg, factor: float) -> Leg:
    if leg.transfer is not None or leg.working <= 0.0:
        return leg
    class_s = {name: seconds if name == HOST else seconds * factor for name, seconds in leg.class_s.items()}
    change = sum(class_s.values()) - sum(leg.class_s.values())
    return replace(leg, device_s=leg.device_s + change, lead_s=max(leg.launch_s, leg.lead_s + change), class_s=class_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """What drawn steps came to, in seconds; `percentile_s` by 5, 50 and 95."""

    samples: int
    mean_s: float
    percentile_s: Mapping[int, float]

    def to_dict(self) -> dict[str, float]:
        """Return it as plain data."""
        return {
            "samples": self.samples,
            "mean_s": self.mean_s,
            **{f"p{percentile}_s": value for percentile, value in self.percentile_s.items()},
        }


def distribution(steps_s: list[float]) -> Distribution:
    """Return mean and percentiles of drawn steps, between neighbours by straight lines."""
    ordered = sorted(steps_s)
    found = {}
    for percentile in PERCENTILES:
        place = percentile / 100 * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        found[percentile] = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return Distribution(samples=len(ordered), mean_s=sum(ordered) / len(ordered), percentile_s=found)
