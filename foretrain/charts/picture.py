"""The picture of a prediction: where the step goes, what each stage does when, and what fills its memory."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from foretrain.charts.breakdown import draw_breakdown, draw_memory
from foretrain.charts.gantt import closer_look_s, draw_gantt, draw_legend, shown_ranks, spans
from foretrain.charts.style import new_figure, save
from foretrain.charts.words import headline, plan_line, recipe_line
from foretrain.sim.prediction import Prediction
from foretrain.sim.timeline import Timeline


def picture(prediction: Prediction, timeline: Timeline) -> Figure:
    """Return the picture of a prediction and its timeline; a step too long to tell its slices apart gets a closer look at its beginning."""
    pieces = spans(timeline)
    close_s = closer_look_s(pieces, timeline)
    rows = min(3.0, 0.9 + 0.4 * len(shown_ranks(timeline)))
    heights = [1.0, rows, *([rows] if close_s else []), 2.4]
    figure = new_figure(11, 1.7 + sum(heights) * 1.05)
    figure.suptitle(f"{headline(prediction)}\n{plan_line(prediction)}\n{recipe_line(prediction)}", fontsize=10.5, x=0.01, ha="left")
    panels = figure.subplots(len(heights), 1, height_ratios=heights)
    draw_breakdown(panels[0], prediction)
    draw_gantt(panels[1], timeline, pieces, (0.0, timeline.step_s))
    panels[1].set_title("One step, stage by stage", loc="left", fontsize=10, fontweight="bold")
    draw_legend(panels[1], pieces)
    if close_s:
        draw_gantt(panels[2], timeline, pieces, (0.0, close_s))
        panels[2].set_title("Its beginning", loc="left", fontsize=10, fontweight="bold")
    draw_memory(panels[-1], prediction)
    return figure


def save_picture(prediction: Prediction, timeline: Timeline, folder: Path) -> tuple[Path, Path]:
    """Write picture.png and picture.svg into `folder` and return their paths."""
    return save(picture(prediction, timeline), folder, "picture")
