"""The plot of a collective: what is drawn, what is written, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from foretrain.cli import run
from foretrain.errors import PlanError
from foretrain.hardware.load import load_cluster
from foretrain.sim.collectives import collective
from foretrain.sim.curve import curve, lone_span
from foretrain.validate.measured_curves import measured_points


def test_the_curve_is_what_the_simulator_uses() -> None:
    """Time and algorithm of a point are those of a collective of that size."""
    cluster = load_cluster("dgx-h100:2")
    span = lone_span(cluster, 16)
    (point,) = curve("all_reduce", cluster, span, [1e8])
    assert point.time_s == pytest.approx(collective("all_reduce", 1e8, span, cluster).total_s)
    assert point.busbw_bytes_per_s == max(point.by_algorithm.values())


def test_measured_points_are_of_like_systems_only() -> None:
    """Eight A100 of one node: three sites and no H100; two nodes only where the network is the same."""
    found = measured_points("all_reduce", load_cluster("dgx-a100-80gb:1"), 8)
    assert {"8x A100 SXM node", "Azure ND A100 v4 (8x A100 80GB)", "a100_dgx"} <= set(found)
    assert not any("H100" in name for name in found)
    assert measured_points("all_reduce", load_cluster("azure-nd-a100-v4:2"), 16).keys() == {
        "ND A100 v4 (8x A100-SXM4-40GB, 8x HDR 200 Gb/s)"
    }
    assert measured_points("broadcast", load_cluster("dgx-a100-80gb:1"), 8) == {}


def test_the_command_writes_a_picture_and_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PNG, SVG and CSV; --json prints the rows of the CSV."""
    assert run(["plot", "collective", "--cluster", "dgx-a100-80gb:2", "--json", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert imread(tmp_path / "collective.png").std() > 0.05
    with (tmp_path / "collective.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["time_s"]) for row in rows] == pytest.approx([point["time_s"] for point in printed])
    assert [point["time_s"] for point in printed] == sorted(point["time_s"] for point in printed)


def test_the_command_names_its_measurements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The systems that the marks come from, or that there are none."""
    assert run(["plot", "collective", "--cluster", "dgx-h100", "--out", str(tmp_path)]) == 0
    assert "measured: DGX H100 (8x H100) (32 points)" in capsys.readouterr().out
    assert run(["plot", "collective", "--cluster", "dgx-h100", "--collective", "broadcast", "--out", str(tmp_path)]) == 0
    assert "measured: nothing like it" in capsys.readouterr().out


@pytest.mark.parametrize(("ranks", "reason"), [(1, "between 2 and the 16"), (17, "between 2 and the 16"), (9, "use 6, 7, 8, 10")])
def test_ranks_that_do_not_lie_evenly_are_refused(ranks: int, reason: str) -> None:
    """Fewer than two, more than there are, or not the same number in each node."""
    with pytest.raises(PlanError, match=reason):
        lone_span(load_cluster("dgx-h100:2"), ranks)


def test_an_unknown_collective_is_refused() -> None:
    """With the names of those that there are."""
    cluster = load_cluster("dgx-h100:1")
    with pytest.raises(PlanError, match="all_reduce, all_gather"):
        curve("gather", cluster, lone_span(cluster, 8), [1e6])
