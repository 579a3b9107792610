"""Predicted against measured, as a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from foretrain.errors import OutputError
from foretrain.validate.summary import Outcome

_LABELS = {
    "step_time_s": ("step time", "s", 1.0), "memory_bytes": ("peak memory", "GB", 1e9),
    "busbw_bytes_per_s": ("bus bandwidth", "GB/s", 1e9), "time_s": ("time", "s", 1.0),
    "energy_j": ("energy", "J", 1.0), "mean_power_w": ("mean power", "W", 1.0), "power_rise_w": ("rise over idle", "W", 1.0),
    "power_rise_over_least_idle_w": ("rise over the least idle of the system", "W", 1.0),
}  # fmt: skip
LETTER_INCHES = 0.11
"""Room for a letter of the legend."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222", "#8C6D31")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_errors(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write predicted against measured, log-log, a panel per quantity, with lines at ± 10 % and a colour per source.

    Raises:
        OutputError: where the picture cannot be written.
    """
    by_quantity: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.measured is not None and outcome.predicted is not None:
            by_quantity[outcome.quantity].append(outcome)
    panels = max(1, len(by_quantity))
    longest = max((len(o.source) for found in by_quantity.values() for o in found), default=0)
    figure = Figure(figsize=(6.2 * panels + max(2.6, LETTER_INCHES * longest + 0.6), 6.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Sequence[Any] = figure.subplots(1, panels, squeeze=False)[0]
    styles = _styles(o.source for found in by_quantity.values() for o in found)
    for axis, (quantity, found) in zip(axes, by_quantity.items(), strict=False):
        _panel(axis, quantity, found, styles)
    if styles:
        handles, labels = _all_handles(axes)
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    else:
        axes[0].text(0.5, 0.5, "no row has both a prediction and a measurement", ha="center", transform=axes[0].transAxes)
    try:
        figure.savefig(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _styles(sources: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return a colour and a marker per source, in the order of their names, so that pictures of two runs compare."""
    names = sorted(set(sources))
    return {name: (_COLOURS[i % len(_COLOURS)], _MARKERS[i // len(_COLOURS) % len(_MARKERS)]) for i, name in enumerate(names)}


def _panel(axes: Axes, quantity: str, found: list[Outcome], styles: dict[str, tuple[str, str]]) -> None:
    what, unit, scale = _LABELS.get(quantity, (quantity, "", 1.0))
    for source, (colour, marker) in styles.items():
        points = [(o.measured / scale, o.predicted / scale) for o in found if o.source == source and o.measured and o.predicted]
        if points:
            was, predicted = zip(*points, strict=True)
            axes.scatter(was, predicted, s=16, color=colour, marker=marker, alpha=0.7, linewidths=0, label=source)
    _diagonals(axes, [value / scale for o in found for value in (o.measured, o.predicted) if value])
    axes.set(xscale="log", yscale="log", xlabel=f"measured {what} [{unit}]", ylabel=f"predicted {what} [{unit}]")
    axes.set_title(f"{what}: {len(found)} rows", fontsize=10)
    axes.grid(visible=True, which="major", color="#E4E4E4")
    axes.set_axisbelow(True)
    axes.set_aspect("equal")


def _diagonals(axes: Axes, values: list[float]) -> None:
    ends = [min(values) / 1.3, max(values) * 1.3]
    axes.plot(ends, ends, color="#222222", linewidth=1.0, label="predicted = measured")
    for factor, label in ((1.1, "± 10 %"), (0.9, "_")):
        axes.plot(ends, [factor * end for end in ends], color="#666666", linewidth=0.8, linestyle="--", label=label)
    axes.set(xlim=ends, ylim=ends)


def _all_handles(axes: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    """Return each legend entry once over all panels, sources by name, the lines last."""
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    labels = sorted(entries, key=lambda label: (label in ("predicted = measured", "± 10 %"), label))
    return [entries[label] for label in labels], labels
