"""The plot of power and energy: what is drawn, what is written, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from foretrain.cli import run

JOB = ("--model", "gpt2", "--cluster", "dgx-a100-80gb:1", "--global-batch", "64", "--pp", "2")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_command_writes_pictures_points_and_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PNG, SVG, and three tables; --json prints the points of power.csv."""
    assert run(["plot", "power", *JOB, "--clocks", "1410MHz,1100MHz,900MHz", "--caps", "400W,150W", "--json", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {path.name for path in tmp_path.iterdir()} == {"power.png", "power.svg", "power.csv", "timeline.csv", "stages.csv"}
    assert imread(tmp_path / "power.png").std() > 0.05
    assert [point["setting"] for point in printed] == ["as given", "clock", "clock", "clock", "cap", "cap"]
    table = rows(tmp_path / "power.csv")
    assert [float(row["step_s"]) for row in table] == pytest.approx([point["step_s"] for point in printed])
    steps = [point["step_s"] for point in printed]
    assert steps[1] < steps[2] < steps[3]
    assert steps[4] == pytest.approx(steps[0])
    assert printed[5]["accelerator_mean_w"] <= 150


def test_the_front_is_what_nothing_beats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No point of the front has another that is quicker and more frugal; every other point has one."""
    assert run(["plot", "power", *JOB, "--json", "--out", str(tmp_path)]) == 0
    points = json.loads(capsys.readouterr().out)
    assert len(points) == 1 + 12 + 8
    for point in points:
        others = [one for one in points if one["step_s"] < point["step_s"] and one["energy_j"] < point["energy_j"] * (1 - 1e-6)]
        assert not (point["on_front"] and others)
        alike = [one for one in points if one is not point and one["step_s"] <= point["step_s"] * (1 + 1e-6)]
        beaten = [one for one in alike if one["energy_j"] <= point["energy_j"] * (1 + 2e-6)]
        assert point["on_front"] or beaten


def test_stages_are_in_the_columns_that_perseus_reads(tmp_path: Path) -> None:
    """Two stages, two instructions, every clock in MHz; seconds and joules of one pass."""
    assert run(["plot", "power", *JOB, "--clocks", "1410MHz,1000MHz", "--out", str(tmp_path)]) == 0
    table = rows(tmp_path / "stages.csv")
    assert list(table[0]) == ["stage", "instruction", "frequency", "time", "energy"]
    assert {(row["stage"], row["instruction"], row["frequency"]) for row in table} == {
        (stage, instruction, clock) for stage in "01" for instruction in ("forward", "backward") for clock in ("1410", "1000")
    }
    assert all(0 < float(row["time"]) < 1 for row in table)
    assert all(50 < float(row["energy"]) / float(row["time"]) < 420 for row in table)


def test_windows_of_the_timeline_hold_the_energy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mean power over the windows, weighted by accelerators, is the mean of the step."""
    assert run(["plot", "power", *JOB, "--caps", "300W", "--json", "--out", str(tmp_path)]) == 0
    mean_w = json.loads(capsys.readouterr().out)[0]["accelerator_mean_w"]
    windows = rows(tmp_path / "timeline.csv")
    weights = [float(row["accelerators"]) * (float(row["end_s"]) - float(row["start_s"])) for row in windows]
    watts = [float(row["mean_w"]) for row in windows]
    assert sum(w * p for w, p in zip(weights, watts, strict=True)) / sum(weights) == pytest.approx(mean_w, rel=1e-4)


def test_an_accelerator_without_clocks_has_power_over_time_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the command says why there is no more."""
    assert run(["plot", "power", *JOB[:2], "--cluster", "tpu-v4-host:1", "--global-batch", "64", "--out", str(tmp_path)]) == 0
    assert "no power.clocks" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"power.png", "power.svg", "power.csv", "timeline.csv"}


def test_clocks_are_tried_under_the_cap_of_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--power-cap` holds for the clocks; caps that are tried replace it."""
    cap = ("--power-cap", "150W", "--clocks", "1410MHz", "--caps", "400W")
    assert run(["plot", "power", *JOB, *cap, "--json", "--out", str(tmp_path)]) == 0
    given, clock, free = json.loads(capsys.readouterr().out)
    assert given["accelerator_mean_w"] <= 150
    assert clock["accelerator_mean_w"] <= 150
    assert free["accelerator_mean_w"] > 150
