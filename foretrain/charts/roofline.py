"""The roofline of an accelerator with the kernels of a model under it, and the same kernels as rows of a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from foretrain.charts.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, new_figure, plain_axes, save
from foretrain.errors import OutputError
from foretrain.hardware.accelerator import Accelerator
from foretrain.sim.roofline import Roof, RooflinePoint, roofs
from foretrain.units import parse, show

TERA = parse("1 TFLOP/s", "FLOP/s")
ROOF_COLOURS = {"fp8": PURPLE, "bf16": BLUE, "fp16": BLUE, "tf32": GREEN, "fp32": BLACK}
LOOKS = {
    ("gemm", "forward"): (SKY, "o"), ("gemm", "backward"): (BLUE, "o"),
    ("attention", "forward"): (ORANGE, "^"), ("attention", "backward"): (VERMILION, "^"),
}  # fmt: skip
"""Colour and marker of each kind of kernel and direction."""
NAMED = 6


def roofline_figure(accelerator: Accelerator, points: Sequence[RooflinePoint], title: str, precision: str) -> Figure:
    """Return the roofs of every precision, and the kernels that do products as points whose area is their share of the time."""
    figure = new_figure(9.5, 6)
    figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    axes = figure.subplots()
    drawn = [point for point in points if point.flop > 0]
    intensities = [point.intensity for point in drawn]
    ridges = [roof.ridge_flop_per_byte for roof in roofs(accelerator)]
    low, high = min([min(ridges) / 10, *intensities]) / 2, max([10 * max(ridges), *intensities]) * 2
    _draw_roofs(axes, accelerator, (low, high), precision)
    _draw_points(axes, drawn, sum(point.total_s for point in points))
    _scale(axes, (low, high))
    rest = sum(point.total_s for point in points) - sum(point.total_s for point in drawn)
    if points:
        share = rest / sum(point.total_s for point in points)
        figure.supxlabel(
            f"area: share of the time of a micro-batch; {share:.0%} of it goes to kernels without products, which are in the CSV only",
            fontsize=8, x=0.01, ha="left",
        )  # fmt: skip
    return figure


def save_roofline(
    accelerator: Accelerator, points: Sequence[RooflinePoint], title: str, precision: str, folder: Path
) -> tuple[Path, Path, Path]:
    """Write roofline.png, roofline.svg and roofline.csv into `folder` and return their paths."""
    png, svg = save(roofline_figure(accelerator, points, title, precision), folder, "roofline")
    return png, svg, write_csv(accelerator, points, folder / "roofline.csv")


def write_csv(accelerator: Accelerator, points: Sequence[RooflinePoint], path: Path) -> Path:
    """Write a row per roof and per kernel, in SI units, and return the path."""
    table = [*map(roof_row, roofs(accelerator)), *map(point_row, points)]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(table[0] | (point_row(points[0]) if points else {})), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give a folder you may write to") from error
    return path


def roof_row(roof: Roof) -> dict[str, object]:
    """Return a roof as a flat row: its ridge, and its peak as the rate."""
    return {
        "row": "roof", "name": roof.precision, "intensity_flop_per_byte": roof.ridge_flop_per_byte,
        "flop_per_s": roof.peak_flop_per_s, "sustained_flop_per_s": roof.sustained_flop_per_s,
    }  # fmt: skip


def point_row(point: RooflinePoint) -> dict[str, object]:
    """Return a kernel as a flat row."""
    head = {"row": "kernel", "name": point.name, "intensity_flop_per_byte": point.intensity, "flop_per_s": point.flop_per_s}
    rest = {key: value for key, value in asdict(point).items() if key != "name"}
    return {**head, "sustained_flop_per_s": None, **rest, "total_s": point.total_s}


def _draw_roofs(axes: Axes, accelerator: Accelerator, span: tuple[float, float], precision: str) -> None:
    held = accelerator.memory_bytes_per_s * accelerator.memory.efficiency
    xs = np.geomspace(*span, 400)
    seen: dict[float, list[str]] = {}
    for roof in roofs(accelerator):
        seen.setdefault(roof.peak_flop_per_s, []).append(roof.precision)
    for roof in roofs(accelerator):
        names = seen.pop(roof.peak_flop_per_s, None)
        if names is None:
            continue
        mine = precision in names
        colour = ROOF_COLOURS.get(names[0], GREY)
        width, alpha = (2.0, 1.0) if mine else (1.2, 0.55)
        reached = np.minimum(roof.peak_flop_per_s, xs * accelerator.memory_bytes_per_s) / TERA
        axes.plot(xs, reached, color=colour, linewidth=width, alpha=alpha)
        if mine:
            sustained = np.minimum(roof.sustained_flop_per_s, xs * held) / TERA
            axes.plot(xs, sustained, color=colour, linewidth=1.2, linestyle="--", label="held by large products and streams")
        axes.annotate(
            f"{', '.join(names)}: {show(roof.peak_flop_per_s, 'FLOP/s')}", (span[1], roof.peak_flop_per_s / TERA), xytext=(-4, 3),
            textcoords="offset points", fontsize=8, color=colour, ha="right", va="bottom",
        )  # fmt: skip
    at = span[0] * 1.3
    axes.annotate(
        f"memory: {show(accelerator.memory_bytes_per_s, 'B/s')}", (at, at * accelerator.memory_bytes_per_s / TERA), xytext=(8, -4),
        textcoords="offset points", fontsize=8, color=BLACK, ha="left", va="top",
    )  # fmt: skip


def _draw_points(axes: Axes, points: Sequence[RooflinePoint], total_s: float) -> None:
    for (kind, direction), (colour, marker) in LOOKS.items():
        mine = [point for point in points if (point.kind, point.direction) == (kind, direction)]
        if not mine:
            continue
        sizes = [16 + 900 * point.total_s / total_s for point in mine]
        axes.scatter(
            [point.intensity for point in mine], [point.flop_per_s / TERA for point in mine], s=sizes, color=colour, marker=marker,
            alpha=0.75, edgecolors="white", linewidths=0.6, zorder=3, label=f"{'product' if kind == 'gemm' else kind}, {direction}",
        )  # fmt: skip
    named: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: -point.total_s):
        here = (np.log10(point.intensity), np.log10(point.flop_per_s))
        # A name is left out where it would lie on another.
        if len(named) < NAMED and all(abs(here[0] - x) > 0.25 or abs(here[1] - y) > 0.18 for x, y in named):
            named.append((float(here[0]), float(here[1])))
            axes.annotate(
                f"{point.name} {point.total_s / total_s:.0%}", (point.intensity, point.flop_per_s / TERA), xytext=(0, -11),
                textcoords="offset points", fontsize=7.5, ha="center", va="top",
            )  # fmt: skip
    if points:
        axes.legend(frameon=False, fontsize=8, loc="lower right", markerscale=0.7)


def _scale(axes: Axes, span: tuple[float, float]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*span)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("intensity, FLOP per byte", fontsize=9)
    axes.set_ylabel("rate, TFLOP/s", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#EEEEEE")
    plain_axes(axes)
