"""Measurements that were recorded on real devices are fitted, held out, written, loaded and simulated; suites beside them are predicted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import median

import pytest

from foretrain.cli import run
from foretrain.hardware.load import load_cluster
from foretrain.software.load import load_software
from foretrain.validate.case import Case
from foretrain.validate.compare import compare_records
from foretrain.validate.predict_case import predict
from foretrain.validate.records import of_kind, read_records

RECORDED = Path(__file__).parents[1] / "data" / "recorded"
SUITE = "-suite"
FILES = sorted(path for path in RECORDED.glob("*.jsonl") if not path.stem.endswith(SUITE))
MOST_ERROR = 0.15


def test_something_is_recorded() -> None:
    """The tests below run over it."""
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recorded_machine(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One fit, and all that is promised of it."""
    assert run(["calibrate", "--replay", "--measurements", str(path), "--out", str(tmp_path), "--name", "recorded", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    _report_is_sound(data)
    stamp = next(iter(of_kind(read_records(path), "stamp")))
    assert data["device"] == stamp.data["device_name"]
    cluster, software = tmp_path / "recorded.yaml", tmp_path / "recorded-software.yaml"
    job = ["--model", "gpt2", "--global-batch", "1", "--seq-len", "128", "--precision", "fp32"]
    assert run(["simulate", "--cluster", str(cluster), "--software", str(software), *job, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step_s"] > 0.0
    suite = path.with_name(f"{path.stem}{SUITE}.jsonl")
    if suite.exists():
        assert _error(suite, cluster, software) <= MOST_ERROR


def _report_is_sound(data: dict[str, object]) -> None:
    stages: list[dict[str, object]] = data["stages"]  # type: ignore[assignment]
    assert {"matmul", "stream"} <= {str(stage["name"]) for stage in stages}
    for stage in stages:
        held_out = stage["held_out"]
        if held_out is None:  # loads of power are few, and so may steps be
            assert stage["name"] in {"power", "step"}, stage["name"]
            continue
        assert isinstance(held_out, dict)
        assert all(math.isfinite(value) for value in held_out.values())
        assert isinstance(stage["before"], dict)
        assert held_out["median"] < max(0.3, stage["before"]["median"]), stage["name"]


def _error(suite: Path, cluster: Path, software: Path) -> float:
    """Return the median error of predicted steps that the calibration has not seen."""
    machine, stack = load_cluster(str(cluster)), load_software(str(software))

    def predicted(case: Case) -> object:
        return predict(case, machine, stack)

    found = compare_records(read_records(suite), predicted)  # type: ignore[arg-type]
    errors = [abs(one.error_pct) / 100 for one in found if one.error_pct is not None]
    assert len(errors) == len(found), [one.reason for one in found if one.error_pct is None]
    return median(errors)
