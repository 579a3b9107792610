"""Predicted against measured times, with the spread of the measurement and a band around their being equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from foretrain.charts.style import BLACK, BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, PURPLE, VERMILION, new_figure, plain_axes, save, time_unit

_LOOKS = {"mlp": (BLUE, "o"), "resnet": (VERMILION, "s"), "gpt": (GREEN, "D"), "module": (PURPLE, "^")}
_OTHER = (ORANGE, "v")
NAMED = 5
"""Cases whose names stand beside their points: the worst, where they lie outside the band."""
LETTER = 0.0115
"""Of the width of the axes, what a letter of a name takes."""
HEAD, TAIL = 6, 20
"""Letters of a long name that are shown, from either end."""
APART = 1.25
"""Factor between two points from which both may have their names."""
MARGIN = 1.7
"""Factor of room beyond the outermost points, for names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One case: what it is called, the kind that gives it its look, the median and quartiles measured, and what was predicted."""

    name: str
    kind: str
    measured_s: float
    q1_s: float
    q3_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        """The signed error over the measurement."""
        return self.predicted_s / self.measured_s - 1.0

    @property
    def low_s(self) -> float:
        """The lower end of its bar."""
        return min(self.q1_s, self.measured_s)

    @property
    def high_s(self) -> float:
        """The upper end of its bar."""
        return max(self.q3_s, self.measured_s)


def save_compared(points: Sequence[Point], title: str, band: float, folder: Path) -> tuple[Path, Path]:
    """Write compare.png and compare.svg into `folder` and return their paths.

    Raises:
        OutputError: where a file cannot be written.
    """
    return save(compared_figure(points, title, band), folder, "compare")


def compared_figure(points: Sequence[Point], title: str, band: float) -> Figure:
    """Return the picture: a point per case, the worst outside of `band` (0.15 is ±15 %) with their names."""
    figure = new_figure(7.2, 7.0)
    figure.suptitle(title, fontsize=9.5, x=0.02, ha="left")
    axes = figure.subplots()
    if points:
        _draw(axes, points, band)
    else:
        axes.text(0.5, 0.5, "no case has both a prediction and a measurement", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
    return figure


def _draw(axes: Axes, points: Sequence[Point], band: float) -> None:
    least_s, most_s = min(min(one.low_s, one.predicted_s) for one in points), max(max(one.high_s, one.predicted_s) for one in points)
    scale, unit = time_unit(most_s)
    ends = (least_s / MARGIN / scale, most_s * MARGIN / scale)
    _draw_band(axes, ends, band)
    for kind in dict.fromkeys(one.kind for one in points):
        _draw_kind(axes, kind, [one for one in points if one.kind == kind], scale)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    _name_worst(axes, points, band, scale)
    axes.set(xlabel=f"measured step time in {unit} (bars: quartiles)", ylabel=f"predicted step time in {unit}")
    axes.set_aspect("equal")
    _plain_numbers(axes)
    axes.grid(color=LIGHT, which="major")
    plain_axes(axes)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")


def _draw_kind(axes: Axes, kind: str, own: Sequence[Point], scale: float) -> None:
    colour, marker = _LOOKS.get(kind, _OTHER)
    bars = [[(one.measured_s - one.low_s) / scale for one in own], [(one.high_s - one.measured_s) / scale for one in own]]
    axes.errorbar(
        [one.measured_s / scale for one in own], [one.predicted_s / scale for one in own], xerr=bars, linestyle="none", marker=marker,
        markersize=5.5, color=colour, ecolor=DARK, elinewidth=1.0, capsize=2, alpha=0.85, label=kind or "other",
    )  # fmt: skip


def _draw_band(axes: Axes, ends: tuple[float, float], band: float) -> None:
    lower, upper = [(1 - band) * end for end in ends], [(1 + band) * end for end in ends]
    axes.fill_between(ends, lower, upper, color=LIGHT, zorder=0, linewidth=0, label=f"±{100 * band:.0f} %")
    axes.plot(ends, ends, color=GREY, linewidth=1.0, zorder=1, label="predicted = measured")


def _name_worst(axes: Axes, points: Sequence[Point], band: float, scale: float) -> None:
    """Write the names of the worst cases beside their points, away from the diagonal, where none stands already.

    A name above the diagonal ends at its point, unless the frame would cut it.
    """
    named: list[Point] = []
    for one in sorted(points, key=lambda point: -abs(point.error)):
        if abs(one.error) <= band or len(named) == NAMED:
            return
        if any(_near(one, other) for other in named):
            continue
        named.append(one)
        above = one.error > 0.0
        name = one.name if len(one.name) <= HEAD + TAIL else f"{one.name[:HEAD]}…{one.name[-TAIL:]}"
        place = one.measured_s / scale, one.predicted_s / scale
        across = axes.transAxes.inverted().transform(axes.transData.transform(place))[0]
        leftwards = above and across > LETTER * len(name)
        axes.annotate(
            name, place, fontsize=7.5, color=BLACK, xytext=(-6 if leftwards else 6, 5 if above else -5),
            textcoords="offset points", ha="right" if leftwards else "left", va="bottom" if above else "top",
        )  # fmt: skip


def _near(one: Point, other: Point) -> bool:
    pairs = ((one.measured_s, other.measured_s), (one.predicted_s, other.predicted_s))
    return all(max(a / b, b / a) < APART for a, b in pairs)


def _plain_numbers(axes: Axes) -> None:
    """Label decades, and 2 and 5 between them, with plain numbers."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    axes.tick_params(which="both", labelsize=8)
