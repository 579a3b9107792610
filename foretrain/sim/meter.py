"""What a meter shows of a timeline: mean power of an accelerator over windows, exactly the energy that fell into each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foretrain.sim.columns import Floats, by_rank, columns_of, power_of
from foretrain.sim.timeline import Timeline


def metered(timeline: Timeline, idle_w: float, edges_s: Floats) -> tuple[Floats, ...]:
    """Return, of every simulated rank, the mean watts of one accelerator at its own meter between neighbouring edges.

    The energy up to an instant is piecewise linear between the steps of the power, so its differences at the edges are exact.
    """
    positions = by_rank(timeline.slices)
    found = []
    for rank in timeline.ranks:
        times_s, watts = power_of(columns_of(timeline.slices, positions(rank.index)), baseline_w=idle_w, step_s=timeline.step_s)
        energy_j = np.concatenate(([0.0], np.cumsum(np.diff(times_s) * watts[:-1])))
        found.append(np.diff(np.interp(edges_s, times_s, energy_j)) / np.diff(edges_s))
    return tuple(found)


def mean_of(timeline: Timeline, curves: Sequence[Floats]) -> Floats:
    """Return the mean over all accelerators of the curves of the simulated ranks."""
    weights = np.array([rank.multiplicity for rank in timeline.ranks], dtype=float)
    mean: Floats = np.average(np.stack(curves), axis=0, weights=weights)
    return mean
