"""Rings along the axes of a torus, all axes at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

from foretrain.hardware.fabric import Fabric
from foretrain.sim.algorithms.base import PASSES, Algorithm, Group, Option

AXES = {"torus-1d": 1, "torus-2d": 2, "torus-3d": 3}


@final
class Torus(Algorithm):
    """Rings in both directions of every axis that the group fills, each with its part of the tensor.

    latency = base + passes · axes · (side - 1) · step; an axis whose ends are not joined carries half, because its middle link is
    passed by all that goes from one half to the other.

    **Source:** Kumar et al., Highly available data parallel ML training on mesh networks, arXiv:2011.03605, section 2; Jouppi et al.,
    arXiv:2304.01433, section 2 (tori and wrap-around links of TPU v4).
    """

    name = "torus"

    def options(self, group: Group) -> Iterator[Option]:
        """Yield the rings where the group stays in one torus."""
        axes = AXES.get(group.up.topology)
        if axes is None or group.crosses or group.kind == "all_to_all":
            return
        span, passes = group.span, PASSES[group.kind]
        used, side = shape(group.up, span.ranks)
        share = used / axes * _joined(group.up, side)
        inside = group.inside_bytes_per_s * share
        fill_s = passes * (span.ranks - 1) * group.fill_bytes() / inside
        latency_s = group.up.base_latency_s + passes * used * (side - 1.0) * group.up.step_latency_s + fill_s
        # The links of the other axes stay free for other groups.
        yield Option(algorithm=self.name, latency_s=latency_s, bytes_per_s=inside, port_share=share, network_share=0.0)


def shape(fabric: Fabric, ranks: int) -> tuple[int, float]:
    """Return how many axes a group takes in a torus with equal sides, and how far it reaches along each."""
    axes = AXES[fabric.topology]
    full = max(2.0, fabric.domain ** (1.0 / axes))
    used = min(axes, max(1, math.ceil(math.log(ranks) / math.log(full) - 1e-9)))
    return used, ranks ** (1.0 / used)


def _joined(fabric: Fabric, side: float) -> float:
    return 1.0 if side >= fabric.wraparound - 1e-9 else 0.5
