"""One look for every picture: colours that colour-blind readers can tell apart, names of classes, figures without global state."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from foretrain.errors import OutputError
from foretrain.units import parse

# Okabe and Ito's palette, "Color Universal Design" (2008), with three neutrals.
BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, VERMILION, PURPLE = "#E69F00", "#D55E00", "#CC79A7"
BLACK, DARK, GREY, LIGHT = "#222222", "#666666", "#B4B4B4", "#E4E4E4"

CLASS_COLOURS = {
    "math": BLUE, "memory": SKY, "overhead": DARK,
    "tensor_parallel": ORANGE, "context_parallel": YELLOW, "expert_parallel": GREY, "pipeline_parallel": PURPLE,
    "data_parallel": VERMILION,
    "bubble": LIGHT, "optimizer": GREEN, "host": BLACK,
}
"""Colour of each class of the breakdown."""

PHASE_COLOURS = {
    "forward": SKY, "backward": BLUE, "weight_gradient": YELLOW, "optimizer": GREEN,
    "tensor_parallel": ORANGE, "context_parallel": "#999933", "expert_parallel": "#882255", "pipeline_parallel": PURPLE,
    "data_parallel": VERMILION, "host": DARK, "other": GREY,
}
"""Colour of each phase in a Gantt chart."""

COMPONENT_COLOURS = {
    "parameters": BLUE, "gradients": SKY, "optimizer": GREEN,
    "activations": ORANGE, "buffers": PURPLE, "framework": GREY,
}
"""Colour of each component of memory."""

def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure on the Agg canvas, its layout constrained so that nothing overlaps."""
    figure = Figure(figsize=(width_in, height_in), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def time_unit(span_s: float) -> tuple[float, str]:
    """Return the seconds in the unit that suits a time axis of `span_s`, and its name."""
    for unit in ("s", "ms"):
        if span_s >= 2 * parse(f"1 {unit}", "s"):
            return parse(f"1 {unit}", "s"), unit
    return parse("1 us", "s"), "µs"


def plain_axes(axes: Axes) -> None:
    """Take the frame off the top and right of `axes` and put its grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def save(figure: Figure, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write `figure` as PNG and SVG into `folder` and return the paths; the same figure gives the same bytes.

    Raises:
        OutputError: where a file cannot be written.
    """
    png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
    _settle(figure)
    try:
        with mpl.rc_context({"svg.hashsalt": "foretrain"}):
            figure.savefig(png)
            figure.savefig(svg, metadata={"Date": None})
    except OSError as error:
        raise OutputError(f"pictures cannot be written to {folder}: {error.strerror or error}; give a folder you may write to") from error
    return png, svg


def _settle(figure: Figure) -> None:
    """Lay the figure out once and round where its axes stand: the solver of the layout leaves noise in the last bits."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(side, 6) for side in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
