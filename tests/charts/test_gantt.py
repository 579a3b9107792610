"""The Gantt chart's arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from foretrain.charts.gantt import PHASES, coverage, image, phase, shown_ranks, spans
from foretrain.sim.timeline import Slice
from tests.charts.factory import gantt_timeline


@pytest.mark.parametrize("pixels", [7, 100, 1601])
def test_coverage_keeps_all_time(pixels: int) -> None:
    """However wide the pixels, each phase covers as much time as its slices last: 8 slots forward, 8 backward, 1 of optimizer a stage."""
    timeline = gantt_timeline()
    edges_s = np.linspace(0.0, timeline.step_s, pixels + 1)
    seconds = coverage(spans(timeline), edges_s, rows=4).sum(axis=3) * (timeline.step_s / pixels)
    for name, slots in (("forward", 8.0), ("backward", 8.0), ("optimizer", 1.0)):
        assert seconds[:, 0, PHASES.index(name)] == pytest.approx([slots] * 4)
    assert seconds[:, 1, PHASES.index("pipeline_parallel")] == pytest.approx([1.6] * 4)


def test_coverage_is_a_share_of_each_pixel() -> None:
    """Stage 1 idles in the first slot and runs forward in the second; half a pixel of each is half of it."""
    timeline = gantt_timeline()
    shares = coverage(spans(timeline), np.array([0.0, 1.0, 2.0]), rows=4)[1, 0, PHASES.index("forward")]
    assert shares == pytest.approx([0.0, 1.0])
    shares = coverage(spans(timeline), np.array([0.5, 1.5]), rows=4)[1, 0, PHASES.index("forward")]
    assert shares == pytest.approx([0.5])


def test_idle_pixels_are_white_and_colours_stay_in_range() -> None:
    """Nothing ran: white. Two streams at once never pass full colour."""
    shares = np.zeros((1, 2, len(PHASES), 2))
    shares[0, 1, 0, 1] = shares[0, 1, 1, 1] = 1.0
    colours = image(shares)
    assert np.all(colours[:, :, 0] == 1.0)
    assert np.all((colours >= 0.0) & (colours <= 1.0))


def test_spans_of_a_window_are_cut_to_it() -> None:
    """A window of one and a half slots shows at most that much of any slice."""
    cut = spans(gantt_timeline()).within((0.5, 2.0))
    assert cut.start_s.min() == 0.5
    assert cut.end_s.max() == 2.0


def test_each_stage_is_shown_once() -> None:
    """Rows are stages in order."""
    assert [rank.stage for rank in shown_ranks(gantt_timeline(stages=5))] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "kind", "colour"),
    [
        ("forward 3", "math", "forward"),
        ("backward input 1", "math", "backward"),
        ("backward weight 1", "math", "weight_gradient"),
        ("backward", "memory", "backward"),
        ("send", "pipeline_parallel", "pipeline_parallel"),
        ("load", "host", "host"),
    ],
)
def test_phase_follows_kind_then_name(name: str, kind: str, colour: str) -> None:
    """Communication, optimizer and host are coloured by kind, passes by direction."""
    assert phase(Slice(0, 0, name, kind, 0.0, 1.0, 0.0)) == colour
