"""Fields of a timeline as arrays, and the power that its slices add up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foretrain.sim.timeline import Slice

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]

SHORTEST_S = 1e-9
"""Least width over which a slice's energy is spread: the resolution of a trace."""


class Columns(NamedTuple):
    """Slices by field, and only the fields that counters and arrows need."""

    stream: Ints
    start_s: Floats
    end_s: Floats
    joules: Floats


def columns_of(slices: Sequence[Slice], at: Ints) -> Columns:
    """Return the slices at these positions, field by field."""
    start_s = column(slices, "start_s", at)
    return Columns(
        stream=column(slices, "stream", at).astype(np.int32),
        start_s=start_s,
        end_s=start_s + column(slices, "duration_s", at),
        joules=column(slices, "joules", at),
    )


def column(rows: Sequence[Any], field: str, at: Ints) -> Floats:
    """Return one field of the named tuples at these positions."""
    place = rows[0]._fields.index(field) if len(at) else 0
    return np.fromiter((rows[position][place] for position in at), np.float64, len(at))


def by_rank(rows: Sequence[Any], field: str = "rank") -> Callable[[int], Ints]:
    """Return what gives, for a rank, the positions of its rows in their order."""
    ranks = np.fromiter((getattr(row, field) for row in rows), np.int32, len(rows))
    known, counts = np.unique(ranks, return_counts=True)
    order = np.argsort(ranks, kind="stable").astype(np.int32)
    return partial(_positions, order, dict(zip(known.tolist(), zip(np.cumsum(counts) - counts, counts, strict=True), strict=True)))


def _positions(order: Ints, found: dict[int, tuple[int, int]], rank: int) -> Ints:
    start, count = found.get(rank, (0, 0))
    return order[start : start + count]


def power_of(columns: Columns, *, baseline_w: float, step_s: float) -> tuple[Floats, Floats]:
    """Return (times, watts) of a rank's slices: a step function from 0 to the end of the step.

    A slice's width is the difference of the very times at which the function steps, so that rounding loses no energy.
    """
    end_s = np.maximum(columns.end_s, np.nextafter(columns.start_s + SHORTEST_S, np.inf))
    added_w = columns.joules / (end_s - columns.start_s)
    times = np.concatenate(([0.0, step_s], columns.start_s, end_s))
    watts = np.concatenate(([baseline_w, 0.0], added_w, -added_w))
    del end_s, added_w  # a million slices on one rank: what is no longer needed makes room for the sort
    order = np.argsort(times, kind="stable").astype(np.int32)
    times, watts = times[order], watts[order]
    np.cumsum(watts, out=watts)
    last = np.append(times[1:] > times[:-1], True)
    return times[last], watts[last]


def nanoseconds(times_s: Floats) -> Ints:
    """Return times rounded to the resolution of a trace."""
    return np.rint(times_s * 1e9).astype(np.int64)
