"""Pictures come out whole, quickly and the same each time."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread

from foretrain.charts.picture import picture, save_picture
from foretrain.charts.scaling import left_out, save_scaling
from foretrain.errors import OutputError
from foretrain.sim.sweep import ScalingPoint, summarise
from tests.charts.factory import gantt_timeline, prediction


def test_picture_is_written_as_png_and_svg(tmp_path: Path) -> None:
    """Both files exist, the PNG has an image in it, and the words of the SVG name the job."""
    png, svg = save_picture(prediction(), gantt_timeline(), tmp_path)
    assert imread(png).std() > 0.05
    assert svg.read_text().lstrip().startswith("<?xml")


def test_same_prediction_gives_the_same_bytes(tmp_path: Path) -> None:
    """A picture has no date and no random names in it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = [path.read_bytes() for path in save_picture(prediction(), gantt_timeline(), tmp_path / "a")]
    assert first == [path.read_bytes() for path in save_picture(prediction(), gantt_timeline(), tmp_path / "b")]


def test_a_short_step_has_three_panels_and_a_long_one_a_closer_look() -> None:
    """Four stages of 8 micro-batches are drawn box by box; of 800, a fourth panel shows the beginning."""
    assert len(picture(prediction(), gantt_timeline()).axes) == 3
    gpipe = gantt_timeline(microbatches=800)
    assert len(picture(prediction(), gpipe).axes) == 3  # it turns backward half-way: there is no short beginning
    odd = ("1", "3", "5", "7", "9")
    alternating = tuple(piece._replace(name="backward") if piece.name.endswith(odd) else piece for piece in gpipe.slices)
    assert len(picture(prediction(), replace(gpipe, slices=alternating)).axes) == 4


def test_a_hundred_thousand_slices_take_seconds(tmp_path: Path) -> None:
    """Cost grows with pixels, not with boxes."""
    timeline = gantt_timeline(stages=35, microbatches=720)
    assert len(timeline.slices) > 100_000
    start = time.perf_counter()
    picture(prediction(), timeline).savefig(tmp_path / "long.png")
    assert time.perf_counter() - start < 10  # 1.5 s on an idle core


def test_panels_have_titles_and_units() -> None:
    """Every axis with numbers names its unit."""
    breakdown, gantt, memory = picture(prediction(), gantt_timeline()).axes
    assert breakdown.get_xlabel().startswith("time in s")
    assert gantt.get_xlabel() == "time in s"
    assert memory.get_ylabel() == "peak memory in GB"


def scaling_points() -> tuple[ScalingPoint, ...]:
    """Return two points that were placed, one of which does not fit, and one that was not."""
    first, second = (summarise(prediction(accelerators=8 * nodes, step_s=8.0 / nodes)) for nodes in (1, 2))
    point = ScalingPoint(mode="strong", nodes=1, accelerators=8, global_batch=64, summary=first)
    over = replace(point, nodes=2, accelerators=16, summary=replace(second, fits=False))
    return point, over, replace(point, nodes=3, accelerators=24, summary=None, reason="64 is no multiple of 3")


def test_scaling_names_what_is_left_out_or_does_not_fit(tmp_path: Path) -> None:
    """Nothing disappears silently: neither from the picture's notes nor from the CSV."""
    points = scaling_points()
    missing, hollow = left_out(points)
    assert missing == "left out: strong, 3 nodes: 64 is no multiple of 3"
    assert hollow == "hollow, because it does not fit memory: nodes strong 2"
    _, _, rows = save_scaling(points, "title", tmp_path)
    lines = rows.read_text().splitlines()
    assert len(lines) == 4
    assert lines[3].endswith("64 is no multiple of 3")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """A missing folder is an OutputError with the remedy."""
    with pytest.raises(OutputError, match="give a folder"):
        save_picture(prediction(), gantt_timeline(), tmp_path / "missing")
