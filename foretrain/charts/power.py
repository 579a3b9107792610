"""Power over a step, and time against energy over clocks and caps, and the same numbers as rows of CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foretrain.charts.gantt import closer_look_s, shown_ranks, spans
from foretrain.charts.style import BLACK, BLUE, DARK, GREEN, GREY, ORANGE, PURPLE, VERMILION, new_figure, plain_axes, save, time_unit
from foretrain.errors import OutputError
from foretrain.hardware.accelerator import AcceleratorPower
from foretrain.sim.meter import mean_of, metered
from foretrain.sim.pareto import MEGAHERTZ, Operated, Setting, StagePoint, frontier
from foretrain.sim.timeline import Timeline
from foretrain.units import parse, show

WINDOWS = 600
"""Windows that a step, or its beginning, is cut into: about the pixels of a panel."""
STAGE_COLOURS = (ORANGE, PURPLE, GREEN)
DIRECTION_LOOKS = {"forward": (BLUE, "o"), "backward": (VERMILION, "s")}


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerStory:
    """All that the plot shows of a job: one step as it was given, the same step under every setting, and its stages at every clock."""

    title: str
    power: AcceleratorPower
    timeline: Timeline
    given: Operated
    operated: Sequence[Operated]
    stages: Sequence[StagePoint]


def power_figure(story: PowerStory) -> Figure:
    """Return power over the step above; below, where the accelerator has clocks, time against energy and the energy of passes."""
    tried = bool(story.operated)
    figure = new_figure(12, 8.6 if tried else 4.4)
    figure.suptitle(story.title, fontsize=10.5, x=0.01, ha="left")
    close_s = closer_look_s(spans(story.timeline), story.timeline)
    rows = figure.subfigures(1 + tried, 1, squeeze=False)[:, 0]
    widths = [1.6, 1.0] if close_s else [1.0]
    panels = rows[0].subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    _draw_power(panels[0], story, story.timeline.step_s, "power of an accelerator in W")
    if close_s:
        _draw_power(panels[1], story, close_s, "its beginning")
    panels[0].legend(
        frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.0, columnspacing=1.0,
        handlelength=1.4,
    )  # fmt: skip
    if tried:
        plane, passes = rows[1].subplots(1, 2, width_ratios=[1.6, 1.0])
        _draw_plane(plane, story)
        _draw_passes(passes, story.stages)
    return figure


def save_power(story: PowerStory, folder: Path) -> tuple[Path, ...]:
    """Write power.png, power.svg, power.csv and timeline.csv into `folder` and return their paths."""
    png, svg = save(power_figure(story), folder, "power")
    points = _write_csv(power_rows(story), folder / "power.csv")
    return png, svg, points, _write_csv(timeline_rows(story), folder / "timeline.csv")


def power_rows(story: PowerStory) -> list[dict[str, object]]:
    """Return a flat row in SI units for the job as it was given and under every setting."""
    best = frontier([story.given, *story.operated])
    return [_row(point, on_front=any(point is one for one in best)) for point in (story.given, *story.operated)]


def _row(point: Operated, *, on_front: bool) -> dict[str, object]:
    said = point.prediction
    return {
        "setting": kind_of(point.setting), "clock_hz": point.setting.clock_hz, "cap_w": point.setting.cap_w, "mean_clock_hz": said.clock_hz,
        "step_s": said.step_s, "energy_j": said.energy_j, "accelerator_mean_w": said.power["accelerator_mean_w"],
        "accelerator_peak_w": said.power["accelerator_peak_w"], "mean_power_w": said.mean_power_w, "cost_usd": said.cost_usd,
        "electricity_usd": said.electricity_usd, "co2_g": said.co2_g, "on_front": on_front,
    }  # fmt: skip


def timeline_rows(story: PowerStory) -> Iterable[dict[str, object]]:
    """Yield the mean power of each simulated rank over each window of the step."""
    edges_s = np.linspace(0.0, story.timeline.step_s, WINDOWS + 1)
    curves = metered(story.timeline, story.power.idle_w, edges_s)
    for rank, curve in zip(story.timeline.ranks, curves, strict=True):
        for start_s, end_s, watts in zip(edges_s[:-1], edges_s[1:], curve, strict=True):
            yield {"rank": rank.label, "stage": rank.stage, "accelerators": rank.multiplicity,
                   "start_s": f"{start_s:.9g}", "end_s": f"{end_s:.9g}", "mean_w": f"{watts:.6g}"}  # fmt: skip


def kind_of(setting: Setting) -> str:
    """Return what a setting is called: clock, cap, or as given."""
    if setting.clock_hz is not None:
        return "clock"
    return "as given" if setting.cap_w is None else "cap"


def words_of(setting: Setting) -> str:
    """Return a setting in words: `clock 1.2 GHz`, `cap 300 W`, `as given`."""
    if setting.clock_hz is not None:
        return f"clock {show(setting.clock_hz, 'Hz', 4)}"
    return "as given" if setting.cap_w is None else f"cap {show(setting.cap_w, 'W', 4)}"


# ── power over time ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _draw_power(axes: Axes, story: PowerStory, until_s: float, title: str) -> None:
    """Draw the mean of all accelerators and up to three stages, each window's mean as a step, below the limit or cap."""
    timeline, power = story.timeline, story.power
    scale, unit = time_unit(until_s)
    edges_s = np.linspace(0.0, until_s, WINDOWS + 1)
    curves = metered(timeline, power.idle_w, edges_s)
    shown = shown_ranks(timeline)
    picked = [shown[0], shown[len(shown) // 2], shown[-1]] if len(shown) > 3 else list(shown) if len(shown) > 1 else []
    for rank, colour in zip(picked, STAGE_COLOURS, strict=False):
        name = f"stage {rank.stage}"
        axes.stairs(curves[rank.index], edges_s / scale, color=colour, linewidth=0.9, alpha=0.75, baseline=None, label=name)
    axes.stairs(mean_of(timeline, curves), edges_s / scale, color=BLUE, linewidth=1.6, baseline=None, label="mean of all accelerators")
    limit_w = power.cap_w or power.limit_w
    for watts, words, below in ((limit_w, "cap" if power.cap_w else "limit", False), (power.idle_w, "idle", True)):
        axes.axhline(watts, color=GREY, linewidth=1, linestyle="--", zorder=1)
        axes.annotate(f"{words} {show(watts, 'W')}", (1.0, watts), xycoords=("axes fraction", "data"), xytext=(-2, -3 if below else 2),
                      textcoords="offset points", fontsize=8, color=DARK, ha="right", va="top" if below else "bottom")  # fmt: skip
    axes.set_xlim(0.0, until_s / scale)
    axes.set_ylim(0.0, 1.12 * max(limit_w, *(float(curve.max()) for curve in curves)))
    _finish(axes, title, f"time in {unit}")


# ── time against energy ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _draw_plane(axes: Axes, story: PowerStory) -> None:
    """Draw every setting by time and energy of a step, the front that nothing beats as a broad line behind."""
    longest = max(point.step_s for point in story.operated)
    (scale, unit), joule = time_unit(longest), _joules(max(point.energy_j for point in story.operated))
    best = frontier([story.given, *story.operated])
    axes.plot([p.step_s / scale for p in best], [p.energy_j / joule[0] for p in best], color=GREY, linewidth=6, alpha=0.5, zorder=1,
              solid_capstyle="round", label="nothing is better in both")  # fmt: skip
    for kind, colour, marker in (("clock", BLUE, "o"), ("cap", ORANGE, "D")):
        mine = [point for point in story.operated if kind_of(point.setting) == kind]
        if mine:
            axes.plot([p.step_s / scale for p in mine], [p.energy_j / joule[0] for p in mine], color=colour, marker=marker, markersize=4.5,
                      linewidth=1, label=f"{kind}s")  # fmt: skip
            _name_ends(axes, mine, scale, joule[0], colour, above=kind == "cap")
    here = [story.given.step_s / scale], [story.given.energy_j / joule[0]]
    axes.scatter(*here, color=BLACK, marker="*", s=110, zorder=4, label="as given")
    axes.legend(frameon=False, fontsize=8, loc="best")
    axes.margins(0.08, 0.14)
    _finish(axes, f"energy of a step in {joule[1]} (facility) against its time", f"step time in {unit}")


def _name_ends(axes: Axes, points: Sequence[Operated], scale: float, joule: float, colour: str, *, above: bool) -> None:
    """Name the fastest, the slowest and the most frugal setting of a sweep."""
    named = {id(one): one for one in (points[0], min(points, key=lambda p: p.energy_j), points[-1])}
    for point in named.values():
        value = point.setting.clock_hz / MEGAHERTZ if point.setting.clock_hz is not None else point.setting.cap_w
        words = f"{value:.0f} {'MHz' if point.setting.clock_hz is not None else 'W'}"
        first = point is points[0]
        axes.annotate(words, (point.step_s / scale, point.energy_j / joule), xytext=(9 if first else 0, 7 if above else 0 if first else -7),
                      textcoords="offset points", fontsize=8, color=colour, ha="left" if first else "center",
                      va="bottom" if above else "center" if first else "top")  # fmt: skip


def _draw_passes(axes: Axes, stages: Sequence[StagePoint]) -> None:
    """Draw the energy of a forward and a backward pass of the first and the last stage over the clock, the least marked."""
    numbers = sorted({point.stage for point in stages})
    joule = _joules(max(point.energy_j for point in stages))
    for stage, line in zip(dict.fromkeys((numbers[0], numbers[-1])), ("-", "--"), strict=False):
        for instruction, (colour, marker) in DIRECTION_LOOKS.items():
            mine = sorted((p for p in stages if (p.stage, p.instruction) == (stage, instruction)), key=lambda p: p.clock_hz)
            words = f"{instruction}, stage {stage}" if len(numbers) > 1 else instruction
            axes.plot([p.clock_hz / MEGAHERTZ for p in mine], [p.energy_j / joule[0] for p in mine], color=colour, linestyle=line,
                      linewidth=1.3, label=words)  # fmt: skip
            least = min(mine, key=lambda p: p.energy_j)
            axes.scatter([least.clock_hz / MEGAHERTZ], [least.energy_j / joule[0]], color=colour, marker=marker, s=28, zorder=3)
    axes.set_ylim(0.0, None)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _finish(axes, f"energy of a pass in {joule[1]} (accelerator)", "clock in MHz; the least is marked")


def _joules(largest_j: float) -> tuple[float, str]:
    """Return the joules in the unit that suits an axis, and its name."""
    for unit in ("GJ", "MJ", "kJ"):
        if largest_j >= parse(f"1 {unit}", "J"):
            return parse(f"1 {unit}", "J"), unit
    return 1.0, "J"


def _finish(axes: Axes, title: str, across: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(across, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#EEEEEE")
    plain_axes(axes)


def _write_csv(rows: Iterable[Mapping[str, object]], path: Path) -> Path:
    table = list(rows)
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(table[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give a folder you may write to") from error
    return path
