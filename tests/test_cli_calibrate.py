"""`calibrate` on the command line: what it refuses, in a few lines and with status 2, and that a next start goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from foretrain.cli import run
from foretrain.validate.measuring.busy import Busy
from foretrain.validate.records import Record, append_record
from tests.validate.calibration.synthetic import GPU, kernel_records, products, stamp

HELD = ("--replay", "--measurements")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a calibration that is refused and return what it says: 1 to 3 lines."""
    assert run(["calibrate", *words]) == 2
    said = capsys.readouterr()
    assert 1 <= len(said.err.strip().splitlines()) <= 3
    assert "Traceback" not in said.err + said.out
    return " ".join(said.err.split())


@pytest.fixture
def measurements(tmp_path: Path) -> Path:
    """Return measured products of an H100."""
    path = tmp_path / "measured.jsonl"
    for record in (stamp("cuda"), *kernel_records(GPU, products("bf16"))):
        append_record(path, record)
    return path


def test_a_replay_prints_and_writes(measurements: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors, numbers and what to do next; the folder holds profiles, report and picture."""
    out = tmp_path / "out"
    assert run(["calibrate", *HELD, str(measurements), "--out", str(out), "--name", "mine"]) == 0
    text = capsys.readouterr().out
    assert "calibrated from 12 measurements" in text
    assert "not identified, left at the base" in text
    assert "foretrain simulate --cluster" in text
    reports = {f"mine-report.{kind}" for kind in ("md", "json", "png")}
    assert {path.name for path in out.iterdir()} == {"mine.yaml", "mine-software.yaml", *reports}


def test_a_replay_of_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path is named, and the option."""
    said = refused(capsys, *HELD, str(tmp_path / "no.jsonl"), "--out", str(tmp_path))
    assert "no.jsonl" in said
    assert "--measurements" in said


def test_an_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says nothing of a machine."""
    (tmp_path / "empty.jsonl").write_text("")
    refused(capsys, *HELD, str(tmp_path / "empty.jsonl"), "--out", str(tmp_path / "out"))
    said = refused(capsys, *HELD, str(tmp_path / "empty.jsonl"), "--cluster", "dgx-h100", "--out", str(tmp_path / "out"))
    assert "nothing to calibrate from" in said


def test_a_file_that_holds_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line is named."""
    (tmp_path / "other.jsonl").write_text("a,b\n1,2\n")
    assert "line 1" in refused(capsys, *HELD, str(tmp_path / "other.jsonl"), "--out", str(tmp_path / "out"))


def test_a_stamp_of_an_unknown_device(measurements: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It takes the user's word for the machine."""
    append_record(measurements, Record(kind="stamp", key="stamp", data={"device": "cuda", "device_name": "Fictional Z9000"}))
    said = refused(capsys, *HELD, str(measurements), "--out", str(tmp_path / "out"))
    assert "Fictional Z9000" in said
    assert "--cluster" in said
    assert run(["calibrate", *HELD, str(measurements), "--cluster", "dgx-h100", "--out", str(tmp_path / "out")]) == 0


def test_runs_without_a_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs alone do not say what is calibrated."""
    assert "--cluster" in refused(capsys, "--runs", str(tmp_path / "runs.csv"), "--out", str(tmp_path / "out"))
    said = refused(capsys, "--runs", str(tmp_path / "runs.csv"), "--cluster", "dgx-h100", "--out", str(tmp_path / "out"))
    assert "runs.csv" in said


def test_a_busy_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused with the reasons, and nothing is written."""

    def busy(_device: str, **_others: Any) -> Busy:
        return Busy(reasons=("others use 60% of the processors; 15% is quiet: stop them, or wait",))

    monkeypatch.setattr("foretrain.validate.measuring.busy.busy", busy)
    monkeypatch.setattr("foretrain.validate.measuring.busy.PATIENCE_S", 0.0)
    said = refused(capsys, "--device", "cpu", "--budget", "10s", "--out", str(tmp_path / "out"))
    assert "too busy" in said
    assert "60%" in said
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("budget", ["1s", "0s", "-5s", "2000h", "10 GB", "soon", "nan s"])
def test_a_budget_that_is_none(budget: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too short, too long, or no time."""
    refused(capsys, "--device", "cpu", f"--budget={budget}", "--out", str(tmp_path / "out"))


@pytest.mark.parametrize(("option", "value"), [("--device", "gpu"), ("--cluster", "dgx-h1000"), ("--software", "pytroch")])
def test_names_that_are_none(option: str, value: str, measurements: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest is named."""
    held = () if option == "--device" else (*HELD, str(measurements))
    assert value in refused(capsys, *held, option, value, "--out", str(tmp_path / "out"))


def test_a_place_that_cannot_be_written(measurements: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "taken").write_text("")
    assert "taken" in refused(capsys, *HELD, str(measurements), "--out", str(tmp_path / "taken"))


@pytest.mark.parametrize("name", ["../mine", "a/b", "", "my.machine", ".hidden"])
def test_a_name_that_is_none_of_a_profile(name: str, measurements: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Profiles lie in --out, nowhere else."""
    assert "--name" in refused(capsys, *HELD, str(measurements), "--name", name, "--out", str(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "measured.jsonl"}


def test_scipy_that_is_missing(
    measurements: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What installs it is said."""
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert "foretrain[calibrate]" in refused(capsys, *HELD, str(measurements), "--out", str(tmp_path / "out"))
