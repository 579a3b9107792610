"""Predicted against measured step times, with the spread of the measurement and a band of ±15 %."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from foretrain.charts.style import BLACK, BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, PURPLE, VERMILION, new_figure, plain_axes, save, time_unit
from foretrain.validate.comparing.verdict import FAIR_PCT, Verdict
from foretrain.validate.comparing.verdict_text import summary_lines

_LOOKS = {"mlp": (BLUE, "o"), "resnet": (VERMILION, "s"), "gpt": (GREEN, "D"), "module": (PURPLE, "^")}
_OTHER = (ORANGE, "v")
NAMED = 5
"""Cases whose names stand beside their points: the worst, where they lie outside the band."""
LETTERS = 26
APART = 1.25
"""Factor between two points from which both may have their names."""
MARGIN = 1.7
"""Factor of room beyond the outermost points, for names."""


def save_verdicts(found: Sequence[Verdict], folder: Path) -> tuple[Path, Path]:
    """Write compare.png and compare.svg into `folder` and return their paths.

    Raises:
        OutputError: where a file cannot be written.
    """
    return save(verdict_figure(found), folder, "compare")


def verdict_figure(found: Sequence[Verdict]) -> Figure:
    """Return the picture: a point per case that was both measured and predicted."""
    figure = new_figure(7.2, 7.0)
    figure.suptitle("\n".join(summary_lines(found)[:2]), fontsize=9.5, x=0.02, ha="left")
    axes = figure.subplots()
    told = [one for one in found if one.measured and one.predicted_s]
    if told:
        _draw(axes, told)
    else:
        axes.text(0.5, 0.5, "no case has both a prediction and a measurement", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
    return figure


def _draw(axes: Axes, told: Sequence[Verdict]) -> None:
    points = [(one, *_measured(one), one.predicted_s or 0.0) for one in told]
    ends = min(min(low, y) for _, _, low, _, y in points) / MARGIN, max(max(high, y) for _, _, _, high, y in points) * MARGIN
    scale, unit = time_unit(ends[1])
    low_s, high_s = ends[0] / scale, ends[1] / scale
    _draw_band(axes, low_s, high_s)
    for kind in dict.fromkeys(one.kind for one in told):
        colour, marker = _LOOKS.get(kind, _OTHER)
        own = [(x / scale, low / scale, high / scale, y / scale) for one, x, low, high, y in points if one.kind == kind]
        xs, ys = [x for x, *_ in own], [y for *_, y in own]
        errors = [[x - low for x, low, _, _ in own], [high - x for x, _, high, _ in own]]
        axes.errorbar(
            xs, ys, xerr=errors, linestyle="none", marker=marker, markersize=5.5, color=colour, ecolor=DARK, elinewidth=1.0, capsize=2,
            alpha=0.85, label=kind or "other",
        )  # fmt: skip
    _name_worst(axes, told, scale)
    axes.set(xscale="log", yscale="log", xlim=(low_s, high_s), ylim=(low_s, high_s))
    axes.set(xlabel=f"measured step time in {unit} (bars: quartiles)", ylabel=f"predicted step time in {unit}")
    axes.set_aspect("equal")
    _plain_numbers(axes)
    axes.grid(color=LIGHT, which="major")
    plain_axes(axes)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")


def _measured(one: Verdict) -> tuple[float, float, float]:
    spread: Any = one.measured
    return spread.median, min(spread.q1, spread.median), max(spread.q3, spread.median)


def _draw_band(axes: Axes, low: float, high: float) -> None:
    band = FAIR_PCT / 100
    ends = [low, high]
    lower, upper = [(1 - band) * end for end in ends], [(1 + band) * end for end in ends]
    axes.fill_between(ends, lower, upper, color=LIGHT, zorder=0, linewidth=0, label=f"±{FAIR_PCT:.0f} %")
    axes.plot(ends, ends, color=GREY, linewidth=1.0, zorder=1, label="predicted = measured")


def _name_worst(axes: Axes, told: Sequence[Verdict], scale: float) -> None:
    """Write the names of the worst cases beside their points, away from the diagonal, where none stands already."""
    named: list[tuple[float, float]] = []
    for one in told:
        x, y = (one.measured.median if one.measured else 0.0), one.predicted_s or 0.0
        if abs(one.error_pct or 0.0) <= FAIR_PCT or len(named) == NAMED:
            return
        if any(max(x / u, u / x) < APART and max(y / v, v / y) < APART for u, v in named):
            continue
        named.append((x, y))
        above = y > x
        name = one.name if len(one.name) <= LETTERS else one.name[: LETTERS - 1] + "…"
        axes.annotate(
            name, (x / scale, y / scale), fontsize=7.5, color=BLACK, xytext=(-6, 5) if above else (6, -5), textcoords="offset points",
            ha="right" if above else "left", va="bottom" if above else "top",
        )  # fmt: skip


def _plain_numbers(axes: Axes) -> None:
    """Label decades, and 2 and 5 between them, with plain numbers."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    axes.tick_params(which="both", labelsize=8)
