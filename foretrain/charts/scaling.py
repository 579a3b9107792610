"""Strong and weak scaling in six panels, and the same numbers as rows of a CSV file."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from foretrain.charts.style import BLUE, GREY, VERMILION, new_figure, plain_axes, save, time_unit
from foretrain.errors import OutputError
from foretrain.sim.sweep import ScalingPoint, StepSummary, efficiency
from foretrain.units import parse

LOOKS = {"strong": (BLUE, "o"), "weak": (VERMILION, "s")}
"""Colour and marker of each mode."""

Value = Callable[[StepSummary, float], float]
"""What a panel shows, of a summary and its efficiency."""


def scaling_figure(points: Sequence[ScalingPoint], title: str) -> Figure:
    """Return six panels over the number of accelerators; points that do not fit memory are hollow, those not placed are listed below."""
    notes = _footnotes(points)
    figure = new_figure(12, 7.2 + 0.2 * len(notes))
    figure.suptitle(title, fontsize=10.5, x=0.01, ha="left")
    panels = figure.subplots(2, 3).ravel()
    for axes, (name, value, ideal) in zip(panels, _panels(points), strict=False):
        _draw_lines(axes, points, value, ideal=ideal)
        axes.set_title(name, loc="left", fontsize=10, fontweight="bold")
    _draw_key(panels[0], points)
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=8, x=0.01, ha="left")
    return figure


def save_scaling(points: Sequence[ScalingPoint], title: str, folder: Path) -> tuple[Path, Path, Path]:
    """Write scaling.png, scaling.svg and scaling.csv into `folder` and return their paths."""
    png, svg = save(scaling_figure(points, title), folder, "scaling")
    return png, svg, write_csv(points, folder / "scaling.csv")


def write_csv(points: Sequence[ScalingPoint], path: Path) -> Path:
    """Write every point, those left out with their reason, and return the path."""
    item = counted_in(points)
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row(points[0], None, item)), lineterminator="\n")
            writer.writeheader()
            writer.writerows(row(point, ratio, item) for point, ratio in zip(points, efficiency(points), strict=True))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give a folder you may write to") from error
    return path


def counted_in(points: Sequence[ScalingPoint]) -> str:
    """Return what the points count: token, image or sample."""
    return next((point.summary.item for point in points if point.summary), "sample")


def named(field: str, item: str) -> str:
    """Return the name of a field of `StepSummary` with what is counted in it."""
    return field.replace("items", f"{item}s").replace("item", item)


def row(point: ScalingPoint, ratio: float | None, item: str) -> dict[str, object]:
    """Return one point as a flat row in SI units, named by what is counted (`tokens_per_s`); empty cells where it was not placed."""
    names = [field.name for field in fields(StepSummary) if field.name != "item"]
    summary = {named(name, item): getattr(point.summary, name) if point.summary else None for name in names}
    head = {"mode": point.mode, "nodes": point.nodes, "accelerators": point.accelerators, "global_batch": point.global_batch}
    return {**head, **summary, "efficiency": ratio, "reason": point.reason}


def left_out(points: Sequence[ScalingPoint]) -> list[str]:
    """Return a line for every point that is not in the lines, or is in them though it does not fit memory."""
    missing = [f"left out: {point.mode}, {point.nodes} nodes: {point.reason}" for point in points if point.summary is None]
    over = [f"{point.mode} {point.nodes}" for point in points if point.summary and not point.summary.fits]
    return [*missing, *([f"hollow, because it does not fit memory: nodes {', '.join(over)}"] if over else [])]


def _footnotes(points: Sequence[ScalingPoint], most: int = 8) -> list[str]:
    """Return what `left_out` says, cut to what fits under a figure."""
    lines = [textwrap.shorten(line, 190, placeholder=" …") for line in left_out(points)]
    return lines if len(lines) <= most else [*lines[: most - 1], f"and {len(lines) - most + 1} more, with their reasons in scaling.csv"]


def _panels(points: Sequence[ScalingPoint]) -> tuple[tuple[str, Value, str], ...]:
    """Return title, value and ideal line of each panel: `work` is the smallest count's step over the growth, `flat` its value."""
    longest = max((point.summary.step_s for point in points if point.summary), default=1.0)
    scale, unit = time_unit(longest)
    million, percent = parse("1 M", "1"), parse("1 %", "1")
    item = counted_in(points)
    return (
        (f"step time in {unit}", lambda s, _: s.step_s / scale, "work"),
        (f"{item}s/s per accelerator", lambda s, _: s.items_per_s_per_accelerator, "flat"),
        ("efficiency in %", lambda _, ratio: ratio / percent, "flat"),
        (f"energy per {item} in J", lambda s, _: s.energy_per_item_j, "flat"),
        ("exposed communication in % of the step", lambda s, _: s.exposed_communication_s / s.step_s / percent, ""),
        (f"cost in USD per million {item}s", lambda s, _: s.usd_per_item * million, "flat"),
    )


def _draw_lines(axes: Axes, points: Sequence[ScalingPoint], value: Value, *, ideal: str) -> None:
    ratios = zip(points, efficiency(points), strict=True)
    rated = [(point, value(point.summary, ratio)) for point, ratio in ratios if point.summary and ratio]
    for mode in LOOKS:
        placed = [point for point, _ in rated if point.mode == mode]
        xs, ys = [point.accelerators for point in placed], [y for point, y in rated if point.mode == mode]
        _draw_line(axes, mode, placed, ys)
        if xs and ideal:
            growth = [xs[0] / x for x in xs] if (ideal, mode) == ("work", "strong") else [1.0] * len(xs)
            axes.plot(xs, [ys[0] * factor for factor in growth], color=GREY, linestyle="--", linewidth=1, zorder=1)
    _scale_axes(axes, points, log=ideal == "work")


def _draw_line(axes: Axes, mode: str, placed: Sequence[ScalingPoint], ys: Sequence[float]) -> None:
    colour, marker = LOOKS[mode]
    xs = [point.accelerators for point in placed]
    axes.plot(xs, ys, color=colour, linewidth=1.6)
    faces = [colour if point.summary and point.summary.fits else "white" for point in placed]
    axes.scatter(xs, ys, color=faces, edgecolors=colour, marker=marker, s=34, zorder=3)


def _scale_axes(axes: Axes, points: Sequence[ScalingPoint], *, log: bool) -> None:
    counts = sorted({point.accelerators for point in points})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(counts[:: -(-len(counts) // 8)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("accelerators")
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    else:
        axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
    axes.tick_params(which="both", labelsize=8)
    axes.grid(color="#EEEEEE")
    plain_axes(axes)


def _draw_key(axes: Axes, points: Sequence[ScalingPoint]) -> None:
    words = {"strong": "strong (batch fixed)", "weak": "weak (batch grows)"}
    for mode in dict.fromkeys(point.mode for point in points):
        colour, marker = LOOKS[mode]
        axes.plot([], [], color=colour, marker=marker, label=words[mode])
    axes.plot([], [], color=GREY, linestyle="--", label="ideal")
    axes.legend(frameon=False, fontsize=8)
