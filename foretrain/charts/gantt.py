"""The pipeline's Gantt chart: one row per stage, compute above, communication below it.

A step of few slices is drawn box by box. A step of a million slices has many in each pixel: there each pixel shows the mean colour of what
happened in it, exactly weighted by time, so the picture of a long step neither lies nor takes long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from numpy.typing import NDArray

from foretrain.charts.style import PHASE_COLOURS, plain_axes, time_unit
from foretrain.charts.words import label
from foretrain.sim.timeline import SimulatedRank, Slice, Timeline

PIXELS = 1600
BOXES_PER_ROW = 300
"""Slices in a row up to which each gets a box of its own."""
LANES = ((0.0, 0.58), (0.60, 0.26))
"""Top and height of the compute and the communication lane in a row of height 1."""
PHASES = tuple(PHASE_COLOURS)
LOOK = 24
"""Passes of the first stage that a closer look at the beginning shows at least."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Slices of the shown rows as columns. `lane` is 0 for compute and the stream's number for the rest."""

    row: NDArray[np.int64]
    lane: NDArray[np.int64]
    phase: NDArray[np.int64]
    start_s: Array
    end_s: Array

    def within(self, window_s: tuple[float, float]) -> Spans:
        """Return the spans that touch a window, cut to it."""
        first, last = window_s
        kept = (self.end_s > first) & (self.start_s < last)
        return Spans(
            row=self.row[kept], lane=self.lane[kept], phase=self.phase[kept],
            start_s=np.maximum(self.start_s[kept], first), end_s=np.minimum(self.end_s[kept], last),
        )


def phase(piece: Slice) -> str:
    """Return the phase that colours a slice: its kind where it communicates or optimizes, else its direction by name."""
    if piece.kind in PHASE_COLOURS:
        return piece.kind
    name = piece.name.lower()
    if "backward weight" in name:
        return "weight_gradient"
    if "backward" in name:
        return "backward"
    return "forward" if "forward" in name else "other"


def shown_ranks(timeline: Timeline) -> tuple[SimulatedRank, ...]:
    """Return the first simulated rank of every stage, which stands for its stage."""
    first: dict[int, SimulatedRank] = {}
    for rank in timeline.ranks:
        first.setdefault(rank.stage, rank)
    return tuple(first[stage] for stage in sorted(first))


def spans(timeline: Timeline) -> Spans:
    """Return the slices of the shown ranks as columns."""
    row_of = {rank.index: row for row, rank in enumerate(shown_ranks(timeline))}
    codes: dict[tuple[str, str], int] = {}
    rows: list[tuple[int, int, int, float, float]] = []
    for piece in timeline.slices:
        row = row_of.get(piece.rank)
        if row is None or piece.duration_s <= 0:
            continue
        key = (piece.kind, piece.name)
        code = codes.get(key)
        if code is None:
            code = codes[key] = PHASES.index(phase(piece))
        rows.append((row, piece.stream, code, piece.start_s, piece.start_s + piece.duration_s))
    columns = np.array(rows, dtype=float).reshape(-1, 5).T
    row_, lane, code_ = columns[:3].astype(np.int64)
    return Spans(row=row_, lane=lane, phase=code_, start_s=columns[3], end_s=columns[4])


def crowded(pieces: Spans) -> bool:
    """Tell whether a row holds more slices than can be told apart."""
    return int(np.bincount(pieces.row, minlength=1).max()) > BOXES_PER_ROW


def closer_look_s(pieces: Spans, timeline: Timeline) -> float | None:
    """Return the end of a closer look at the beginning: half as long again as it takes until every stage has run backward.

    At least so long that the first stage has run `LOOK` passes; None where the whole step can be told apart.
    """
    if not crowded(pieces):
        return None
    ran = pieces.lane == 0
    backward = ran & (pieces.phase == PHASES.index("backward"))
    first = [float(pieces.end_s[backward & (pieces.row == row)].min(initial=timeline.step_s)) for row in np.unique(pieces.row)]
    early = pieces.end_s[ran & (pieces.row == 0)][:LOOK]
    end_s = max(1.5 * max(first), float(early.max(initial=0.0)))
    return end_s if 0 < end_s < timeline.step_s / 3 else None


def coverage(pieces: Spans, edges_s: Array, rows: int) -> Array:
    """Return the fraction of each pixel that each phase covers, as (row, lane 0 or 1, phase, pixel).

    The time covered up to an instant is piecewise linear between the ends of slices, so its differences at the pixel edges are exact.
    """
    shares = np.zeros((rows, 2, len(PHASES), len(edges_s) - 1))
    keys = (pieces.row * (pieces.lane.max(initial=0) + 1) + pieces.lane) * len(PHASES) + pieces.phase
    order = np.lexsort((pieces.start_s, keys))
    for group in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        if len(group) == 0:
            continue
        start, end = pieces.start_s[group], pieces.end_s[group]
        total = np.concatenate(([0.0], np.cumsum(end - start)))
        times = np.stack((start, end), axis=1).ravel()
        covered = np.stack((total[:-1], total[1:]), axis=1).ravel()
        share = np.diff(np.interp(edges_s, times, covered)) / np.diff(edges_s)
        first = group[0]
        shares[pieces.row[first], min(int(pieces.lane[first]), 1), pieces.phase[first]] += share
    return shares


def image(shares: Array) -> Array:
    """Return the mean colour of each pixel, white where nothing ran, as (row, lane, pixel, rgb)."""
    colours = np.array([to_rgb(PHASE_COLOURS[name]) for name in PHASES])
    # Two communication streams can be busy at once; their shares then pass 1 together and are scaled back.
    busy = shares.sum(axis=2)
    scale = 1.0 / np.maximum(busy, 1.0)
    mixed = np.einsum("rlpx,pc->rlxc", shares, colours) * scale[..., None]
    whitened: Array = mixed + (1.0 - busy * scale)[..., None]
    return whitened


def draw_gantt(axes: Axes, timeline: Timeline, pieces: Spans, window_s: tuple[float, float]) -> None:
    """Draw the `pieces` of a timeline that fall into a window, one row per stage."""
    ranks = shown_ranks(timeline)
    shown = pieces.within(window_s)
    scale, unit = time_unit(window_s[1])
    if crowded(shown):
        _draw_image(axes, shown, window_s, len(ranks))
    else:
        _draw_boxes(axes, shown, scale)
    axes.set_xlim(window_s[0] / scale, window_s[1] / scale)
    axes.set_ylim(len(ranks), -0.05)
    _name_rows(axes, ranks)
    axes.set_xlabel(f"time in {unit}")
    plain_axes(axes)


def draw_legend(axes: Axes, pieces: Spans) -> None:
    """Name the phases that occur, above `axes`, in one line."""
    present = [name for code, name in enumerate(PHASES) if np.any(pieces.phase == code)]
    handles = [Patch(facecolor=PHASE_COLOURS[name], label=label(name)) for name in present]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(handles), frameon=False, fontsize=8,
                handlelength=1.0, columnspacing=1.2, borderaxespad=0.2)


def _draw_boxes(axes: Axes, pieces: Spans, scale: float) -> None:
    tops, heights = (np.array(values)[np.minimum(pieces.lane, 1)] for values in zip(*LANES, strict=True))
    y0, x0, x1 = pieces.row + tops, pieces.start_s / scale, pieces.end_s / scale
    y1 = y0 + heights
    corners = np.stack([np.stack(pair, axis=-1) for pair in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))], axis=1)
    for code, name in enumerate(PHASES):
        chosen = pieces.phase == code
        if chosen.any():
            axes.add_collection(PolyCollection(list(corners[chosen]), facecolors=PHASE_COLOURS[name], edgecolors="white", linewidths=0.3))


def _draw_image(axes: Axes, pieces: Spans, window_s: tuple[float, float], rows: int) -> None:
    edges_s = np.linspace(*window_s, PIXELS + 1)
    colours = image(coverage(pieces, edges_s, rows))
    # 25 thin lines a row: 15 of compute, 7 of communication, and white between them.
    white = np.ones_like(colours[:, 0])
    bands = (colours[:, 0],) * 15 + (white,) + (colours[:, 1],) * 7 + (white,) * 2
    picture = np.stack(bands, axis=1).reshape(-1, PIXELS, 3)
    scale, _ = time_unit(window_s[1])
    extent = (window_s[0] / scale, window_s[1] / scale, float(rows), 0.0)
    axes.imshow(picture.clip(0.0, 1.0), aspect="auto", extent=extent, interpolation="auto")


def _name_rows(axes: Axes, ranks: tuple[SimulatedRank, ...]) -> None:
    """Name every row, or every second, fourth … where names would touch."""
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024) if len(ranks) <= 16 * step)
    rows = range(0, len(ranks), step)
    axes.set_yticks([row + 0.45 for row in rows], [f"stage {ranks[row].stage}" for row in rows], fontsize=8)
    axes.tick_params(axis="y", length=0)
