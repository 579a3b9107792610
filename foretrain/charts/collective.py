"""Bus bandwidth of a collective against message size, measured points beside, and the same numbers as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from foretrain.charts.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW, new_figure, plain_axes, save
from foretrain.errors import OutputError
from foretrain.sim.curve import CurvePoint
from foretrain.units import parse, show

LINES = (ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
Measured = Mapping[str, Sequence[tuple[float, float]]]
"""Points (bytes, bus bandwidth in bytes per second) by the system that they were measured on."""


def collective_figure(points: Sequence[CurvePoint], measured: Measured, title: str) -> Figure:
    """Return time and bus bandwidth over size: what is chosen as a thick line, each algorithm thin, measurements as marks."""
    figure = new_figure(11, 5)
    figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    bandwidth, times = figure.subplots(1, 2)
    giga, micro = parse("1 GB/s", "B/s"), parse("1 us", "s")
    sizes = [point.size_bytes for point in points]
    for colour, name in zip(LINES, _algorithms(points), strict=False):
        bandwidth.plot(sizes, [point.by_algorithm[name] / giga for point in points], color=colour, linewidth=1, label=name)
    bandwidth.plot(sizes, [point.busbw_bytes_per_s / giga for point in points], color=BLUE, linewidth=2.2, label="predicted")
    times.plot(sizes, [point.time_s / micro for point in points], color=BLUE, linewidth=2.2)
    wire = points[0].time_s * points[0].busbw_bytes_per_s / points[0].size_bytes
    for marker, (system, found) in zip(MARKERS * len(measured), measured.items(), strict=False):
        at = [size for size, _ in found]
        look = {"color": BLACK, "marker": marker, "s": 16, "alpha": 0.65, "linewidths": 0, "zorder": 3}
        bandwidth.scatter(at, [rate / giga for _, rate in found], label=system, **look)
        times.scatter(at, [wire * size / rate / micro for size, rate in found], **look)
    _finish(bandwidth, "bus bandwidth in GB/s")
    _finish(times, "time in µs")
    times.set_yscale("log")
    bandwidth.legend(frameon=False, fontsize=8)
    return figure


def save_collective(points: Sequence[CurvePoint], measured: Measured, title: str, folder: Path) -> tuple[Path, Path, Path]:
    """Write collective.png, collective.svg and collective.csv into `folder` and return their paths."""
    png, svg = save(collective_figure(points, measured, title), folder, "collective")
    return png, svg, _write_csv(points, folder / "collective.csv")


def row(point: CurvePoint) -> dict[str, object]:
    """Return one point as a flat row in SI units."""
    return {
        "size_bytes": point.size_bytes, "time_s": point.time_s, "busbw_bytes_per_s": point.busbw_bytes_per_s, "algorithm": point.algorithm,
    }  # fmt: skip


def _write_csv(points: Sequence[CurvePoint], path: Path) -> Path:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row(points[0])), lineterminator="\n")
            writer.writeheader()
            writer.writerows(row(point) for point in points)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give a folder you may write to") from error
    return path


def _algorithms(points: Sequence[CurvePoint]) -> list[str]:
    return list(points[0].by_algorithm) if len(points[0].by_algorithm) > 1 else []


def _finish(axes: Axes, name: str) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value, "B")))
    axes.set_xlabel("message size")
    axes.set_title(name, loc="left", fontsize=10, fontweight="bold")
    axes.tick_params(labelsize=8)
    axes.grid(color="#EEEEEE")
    plain_axes(axes)
