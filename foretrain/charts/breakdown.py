"""Where the step goes, and what fills the memory, as bars."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from foretrain.charts.style import BLACK, CLASS_COLOURS, COMPONENT_COLOURS, GREY, VERMILION, plain_axes, time_unit
from foretrain.charts.words import label
from foretrain.sim.prediction import Prediction
from foretrain.units import parse, show


def draw_breakdown(axes: Axes, prediction: Prediction) -> None:
    """Draw one bar as long as the step, a part per class, and name every part with its seconds and share below it."""
    scale, unit = time_unit(prediction.step_s)
    left, handles = 0.0, []
    for name, seconds in prediction.breakdown.items():
        if seconds <= 0:
            continue
        share = seconds / prediction.step_s
        colour = CLASS_COLOURS.get(name, GREY)
        axes.barh(0, seconds / scale, left=left / scale, color=colour, edgecolor="white", linewidth=0.5)
        handles.append(Patch(facecolor=colour, label=f"{label(name)}  {show(seconds, 's')}  {share:.1%}"))
        left += seconds
    axes.set_xlim(0, prediction.step_s / scale)
    axes.set_yticks([])
    axes.set_xlabel(f"time in {unit}, mean over ranks")
    axes.set_title("Where the step goes", loc="left", fontsize=10, fontweight="bold")
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.75), ncols=3, frameon=False, fontsize=8, handlelength=1.0)
    plain_axes(axes)
    axes.spines["left"].set_visible(False)


def draw_memory(axes: Axes, prediction: Prediction) -> None:
    """Draw the peak memory of every stage by component, against what an accelerator holds."""
    giga = parse("1 GB", "B")
    stages = [stage.stage for stage in prediction.memory]
    bottom = [0.0] * len(stages)
    components = dict.fromkeys(name for stage in prediction.memory for name, size in stage.components.items() if size > 0)
    for name in components:
        heights = [stage.components.get(name, 0.0) / giga for stage in prediction.memory]
        axes.bar(stages, heights, bottom=bottom, width=0.8, color=COMPONENT_COLOURS.get(name, GREY), label=label(name))
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    capacity = max(stage.capacity_bytes for stage in prediction.memory) / giga
    colour = BLACK if prediction.fits else VERMILION
    axes.axhline(capacity, color=colour, linestyle="--", linewidth=1.2, label=f"capacity {capacity:.0f} GB")
    axes.set_ylim(0, 1.08 * max(capacity, *bottom))
    spare = max(0.0, 6 - len(stages)) / 2
    axes.set_xlim(stages[0] - 0.6 - spare, stages[-1] + 0.6 + spare)
    axes.set_xticks(stages[:: -(-len(stages) // 18)])
    axes.set_xlabel("pipeline stage")
    axes.set_ylabel("peak memory in GB")
    axes.set_title("Memory of one accelerator" + ("" if prediction.fits else ": does not fit"), loc="left", fontsize=10, fontweight="bold")
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles, names, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8, handlelength=1.0)
    axes.grid(axis="y", color="#EEEEEE")
    plain_axes(axes)
