"""The picture of predicted against measured times."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretrain.charts.compared import Point, compared_figure, save_compared


def point(name: str, measured_s: float, predicted_s: float, kind: str = "gpt") -> Point:
    return Point(name=name, kind=kind, measured_s=measured_s, q1_s=0.9 * measured_s, q3_s=1.2 * measured_s, predicted_s=predicted_s)


POINTS = (point("far", 0.1, 0.3), point("beside it", 0.101, 0.29), point("close", 0.02, 0.021, "mlp"), point("short", 0.004, 0.003, "odd"))


def test_points_stand_where_they_were_measured_and_predicted() -> None:
    """In milliseconds, with quartiles as bars; both axes are alike, and every point is inside."""
    axes = compared_figure(POINTS, "title", 0.15).axes[0]
    seen = {(round(x, 9), round(y, 9)) for bars in axes.containers for x, y in bars[0].get_xydata()}
    assert seen == {(one.measured_s * 1e3, one.predicted_s * 1e3) for one in POINTS}
    bar = next(bars for bars in axes.containers if bars.get_label() == "mlp")[2][0].get_segments()[0]
    assert [x for x, _ in bar] == pytest.approx([18.0, 24.0])
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[0] < 3
    assert axes.get_xlim()[1] > 300


def test_the_worst_have_their_names_unless_they_would_cover_one_another() -> None:
    """Those within the band need none."""
    axes = compared_figure(POINTS, "title", 0.15).axes[0]
    assert [text.get_text() for text in axes.texts] == ["far", "short"]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"gpt", "mlp", "odd", "±15 %", "predicted = measured"}


def test_it_is_written_even_of_nothing(tmp_path: Path) -> None:
    """No point: a sentence in its place."""
    for points in (POINTS, ()):
        png, svg = save_compared(points, "title", 0.15, tmp_path)
        assert png.stat().st_size > 3_000
        assert svg.is_file()
