"""From measured kernels to the tables of a profile, which stand for the curves near them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from foretrain.hardware.measured import Measured, Row
from foretrain.sim.corrections import Streams
from foretrain.sim.cost import Pricer
from foretrain.validate.calibration.kernels import PLAIN, STREAM_CLASSES, Point
from foretrain.validate.calibration.machine import Machine

LONG = 3.0
"""Times the least of an elementwise kernel from which a class is compared with those; below, both are bound by their launch."""
ALIKE = 1.25
"""Sizes of elementwise kernels within this factor are one row of the curve."""
DIGITS = 4


def tabulated(machine: Machine, points: Sequence[Point]) -> Machine:
    """Return the machine with tables of the kernels."""
    streams = stream_rows(machine, points)
    measured = Measured(
        products={dtype: tuple(rows) for dtype, rows in _grouped(machine, points, "matmul").items()},
        convolutions=_directed(machine, points, "convolution"),
        attention=_directed(machine, points, "attention"),
        streams=streams,
        slowness=_slowness(machine, points, streams),
    )
    return machine.on(replace(machine.accelerator, measured=measured))


def stream_rows(machine: Machine, points: Sequence[Point]) -> tuple[Row, ...]:
    """Return bytes and device seconds of elementwise kernels, sizes alike as one, none quicker than a smaller one."""
    plain = [point for point in points if point.bench == "stream" and point.what in PLAIN]
    found = sorted((point.row[0], device_s(machine, point) * _pace(machine, point)) for point in plain)
    groups: list[list[tuple[float, float]]] = []
    for size, seconds in found:
        if groups and size <= groups[-1][0][0] * ALIKE:
            groups[-1].append((size, seconds))
        else:
            groups.append([(size, seconds)])
    rows: list[Row] = []
    for group in groups:
        size = statistics.median(one for one, _ in group)
        pace = statistics.median(seconds / one for one, seconds in group)
        rows.append((_round(size), _round(max(size * pace, rows[-1][1] if rows else 0.0))))
    return tuple(rows) if len(rows) > 1 else ()


def device_s(machine: Machine, point: Point) -> float:
    """Return the device's part of the seconds of a kernel: without the host's where that is its own device, and without gaps."""
    host = machine.software.host
    launches = Pricer(machine.accelerator, machine.software, point.dtype).launches(point.kernel)
    spent = host.launch_gap_s * launches + (host.launch_s * launches if host.blocking else 0.0)
    return max(point.seconds - spent, 0.1 * point.seconds) / point.kernel.launches


def _pace(machine: Machine, point: Point) -> float:
    """Return the pace that the software has of its own with a kernel: what a profile has of kernels is without it."""
    software = machine.software
    if software.matmul_scale == software.stream_scale == 1.0:
        return 1.0
    if point.bench == "stream":
        return software.stream_scale
    plain = replace(software, matmul_scale=1.0, stream_scale=1.0)
    without, own = (Pricer(machine.accelerator, one, point.dtype).curve_s(point.kernel) for one in (plain, software))
    return without / own


def _slowness(machine: Machine, points: Sequence[Point], streams: tuple[Row, ...]) -> dict[str, dict[str, float]]:
    """Return how much longer each class takes per byte than elementwise kernels of its size, in the middle of what was measured."""
    if not streams:
        return {}
    curve = Streams(streams)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        name = STREAM_CLASSES.get(point.what, "") if point.bench == "stream" else ""
        plain_s = curve.seconds(point.row[0]) if name else 0.0
        if plain_s >= LONG * streams[0][1]:
            found[point.dtype][name].append(device_s(machine, point) * _pace(machine, point) / plain_s)
    return {dtype: {name: round(statistics.median(one), 3) for name, one in sorted(found[dtype].items())} for dtype in sorted(found)}


def _grouped(machine: Machine, points: Sequence[Point], bench: str) -> dict[str, list[Row]]:
    """Return the rows of a bench by dtype; shapes measured more than once, in several layouts, have the middle of their seconds."""
    seconds: dict[str, dict[Row, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        if point.bench == bench:
            seconds[point.dtype][point.row].append(device_s(machine, point) * _pace(machine, point))
    return {
        dtype: [(*row, _round(float(np.median(times)))) for row, times in sorted(found.items())] for dtype, found in sorted(seconds.items())
    }


def _directed(machine: Machine, points: Sequence[Point], bench: str) -> dict[str, dict[str, tuple[Row, ...]]]:
    found: dict[str, dict[str, tuple[Row, ...]]] = defaultdict(dict)
    for direction in sorted({point.what for point in points if point.bench == bench}):
        for dtype, rows in _grouped(machine, [point for point in points if point.what == direction], bench).items():
            found[dtype][direction] = tuple(rows)
    return dict(found)


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
