"""The errors of a calibration as a picture: each stage's before it, fitted, and held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from foretrain.errors import OutputError
from foretrain.validate.calibration.robust import Vector
from foretrain.validate.calibration.stages import Stage

KINDS = (("base", "before", "#999999"), ("fitted", "after", "#0072B2"), ("held out", "held_out", "#D55E00"))
FLOOR = 1e-3


def plot_calibration(stages: Sequence[Stage], path: Path) -> None:
    """Write a row per stage and kind of error: every measurement a point, the median a bar.

    Raises:
        OutputError: where the picture cannot be written.
    """
    rows = [(stage, kind) for stage in stages for kind in KINDS]
    figure = Figure(figsize=(9, 1.2 + 0.34 * max(1, len(rows))), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    for place, (stage, (_, field, colour)) in enumerate(rows):
        errors = np.maximum(np.abs(np.expm1(_sound(getattr(stage, field)))), FLOOR) * 100
        if not len(errors):
            continue
        axes.plot(errors, np.full(len(errors), place), "o", color=colour, alpha=0.35, markersize=4, markeredgewidth=0)
        axes.plot([np.median(errors)] * 2, [place - 0.4, place + 0.4], color=colour, linewidth=2.5)
    axes.set_yticks(range(len(rows)), [f"{stage.name}, {kind[0]}" for stage, kind in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("absolute error in %; bars are medians")
    axes.axvline(5, color="#cccccc", linewidth=1, zorder=0)
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; give a folder that can be written") from error


def _sound(errors: Vector) -> Vector:
    return np.asarray(errors[~np.isnan(errors)])
