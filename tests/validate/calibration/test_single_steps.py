"""One measured step moves the machine to it; a user's file of runs does the same without any other measurement."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from foretrain.cli import run
from foretrain.errors import UsageError
from foretrain.validate.calibrate import calibrate, pace
from foretrain.validate.calibration.bases import Bases, machine_of
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.calibration.own_runs import steps_in
from foretrain.validate.calibration.stages import calibrated
from foretrain.validate.case import Case, Net, case_data
from foretrain.validate.predict_case import predict
from foretrain.validate.records import Record
from tests.validate.calibration.synthetic import GPU, case, kernel_records, products, stamp, step_record, streams

COMPUTE = case("mlp:width=4096,depth=3,classes=4096", batch=4096, precision="bf16")
HOST = case("mlp:width=256,depth=8,classes=64", batch=64, precision="bf16")
ROW = {
    "id": "mine-1", "source": "own", "date": "2024-05", "model": "GPT 1.3B", "arch_family": "gpt", "n_layers": "24", "hidden": "2048",
    "ffn_hidden": "8192", "n_heads": "16", "n_kv_heads": "16", "vocab": "51200", "seq_len": "2048", "params_B": "1.3",
    "accelerator": "H100-80GB-SXM", "n_accelerators": "8", "accel_per_node": "8", "intra_node_link": "NVLink4 900GB/s",
    "precision": "bf16 mixed", "optimizer": "Adam", "dp": "8", "tp": "1", "pp": "1", "cp": "1", "ep": "1",
    "zero_or_fsdp": "none (plain DP)",
    "sequence_parallel": "n", "recompute": "none", "recompute_class": "none", "global_batch_seqs": "64", "micro_batch_seqs": "4",
    "framework": "PyTorch", "complete": "y", "subset": "core", "config_key": "mine",
}  # fmt: skip
COLUMNS = (files("foretrain.validate.data") / "llm_runs.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
BASES = Bases(cluster="dgx-h100", software="pytorch-eager")


def runs_file(path: Path, *changes: Mapping[str, str]) -> Path:
    """Return a file of runs, each the row with changes."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows({**ROW, **change} for change in changes)
    return path


@pytest.mark.parametrize("shapes", [[], [*products("bf16"), *streams("bf16")]], ids=["alone", "with kernels"])
@pytest.mark.parametrize("factor", [0.8, 1.25, 1.5])
def test_one_step_bound_by_products_anchors_the_prediction(factor: float, shapes: list[tuple[str, str, dict[str, Any]]]) -> None:
    """Also where its products were measured alone, and say otherwise."""
    _anchored(GPU, COMPUTE, factor, kernel_records(GPU, shapes))


@pytest.mark.parametrize("factor", [0.8, 1.3])
def test_one_step_bound_by_its_host_anchors_the_prediction(factor: float) -> None:
    """A pace of kernels would not move it; the host's time per op does."""
    _anchored(GPU, HOST, factor, [])


def _anchored(base: Machine, one: Case, factor: float, kernels: list[Record]) -> None:
    found = calibrated(base, [*kernels, step_record(base, one, factor)])
    before = predict(one, base.cluster, base.software).step_s
    after = predict(one, found.machine.cluster, found.machine.software).step_s
    assert after == pytest.approx(factor * before, rel=0.01)
    assert pace(found) == pytest.approx(factor, rel=0.01)
    assert pace(found, "after") == pytest.approx(1.0, rel=0.01)


def test_one_own_run_anchors_the_prediction(tmp_path: Path) -> None:
    """A file of one row, and nothing else."""
    machine = machine_of(BASES)
    (plain,), _ = steps_in(runs_file(tmp_path / "base.csv", {"measured_step_time_s": "1"}), machine)
    target_s = plain.predict(machine).step_s * 1.3
    path = runs_file(tmp_path / "runs.csv", {"measured_step_time_s": f"{target_s:.6g}"})
    written = calibrate([], BASES, tmp_path / "out", runs=path, name="mine")
    (after,), _ = steps_in(path, written.found.machine)
    assert after.predict(written.found.machine).step_s == pytest.approx(target_s, rel=0.01)
    assert pace(written.found) == pytest.approx(1.3, rel=1e-3)
    assert written.cluster.name == "mine.yaml"
    assert written.data["stages"][0]["before"]["median"] == pytest.approx(1 - 1 / 1.3, rel=1e-2)


def test_the_command_says_how_much_one_run_moved_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In its text, and its JSON has the stage."""
    path = runs_file(tmp_path / "runs.csv", {"measured_step_time_s": "1.5"})
    command = ["calibrate", "--runs", str(path), "--cluster", "dgx-h100", "--software", "pytorch-eager", "--out", str(tmp_path / "out")]
    assert run(command) == 0
    assert "times what the base profiles predict" in capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["measurements"] == 1


def test_a_run_over_more_nodes_has_as_many(tmp_path: Path) -> None:
    """The machine is one node; a run over two is predicted on two."""
    changes = {"n_accelerators": "16", "dp": "16", "measured_step_time_s": "1", "inter_node_link": "8x400Gb/s InfiniBand"}
    machine = machine_of(BASES)
    (step,), _ = steps_in(runs_file(tmp_path / "runs.csv", changes), machine)
    assert step.predict(machine).accelerators == 16


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"measured_step_time_s": ""}, "no run that can be simulated"),
        ({"measured_step_time_s": "1", "n_layers": ""}, "no run that can be simulated"),
        ({"measured_step_time_s": "minus", "n_layers": "24"}, "minus"),
    ],
)
def test_runs_that_tell_nothing_are_refused_with_the_first_reason(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    """A calibration of nothing is none."""
    with pytest.raises(UsageError, match=words):
        steps_in(runs_file(tmp_path / "runs.csv", changes), machine_of(BASES))


def test_runs_that_are_left_out_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are fitted; how many are missing is said, with the first reason and its row."""
    path = runs_file(tmp_path / "runs.csv", {"measured_step_time_s": "1.5"}, {"measured_step_time_s": "soon"})
    command = ["calibrate", "--runs", str(path), "--cluster", "dgx-h100", "--software", "pytorch-eager", "--out", str(tmp_path / "out")]
    assert run(command) == 0
    assert "1 of the runs are left out; the first: row 1: measured_step_time_s is 'soon'" in capsys.readouterr().out


def test_a_step_of_a_module_that_is_not_there_is_counted_and_not_fitted() -> None:
    """It cannot be predicted: the others are fitted, and it stays without an error."""
    gone = Case(name="gone", net=Net(kind="module", factory="no.such:net", sample_shape=(3,)), plan=COMPUTE.plan, recipe=COMPUTE.recipe)
    lost = step_record(GPU, COMPUTE, 1.25)
    records = [stamp("cuda"), lost, type(lost)(kind="step", key="gone", data={**lost.data, "case": case_data(gone)})]
    found = calibrated(GPU, records)
    errors = dict(zip(found.stages[-1].keys, found.stages[-1].after, strict=True))
    assert abs(errors[COMPUTE.name]) < 0.02
    assert errors["gone"] != errors["gone"]
