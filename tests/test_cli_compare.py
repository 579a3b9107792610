"""`validate compare` on the command line: what it prints, writes and refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from foretrain.cli import run
from foretrain.hardware.cluster import Cluster
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.software.profile import Software
from foretrain.validate.case import Case, Net, case_data
from foretrain.validate.records import Record, append_record
from tests.validate.comparing.jobs import predicted
from tests.validate.comparing.traces import device_step, mark, op, written

CASE = Case(name="gpt dp 2", net=Net(kind="gpt"), plan=Plan(dp=2), recipe=Recipe(global_batch=2, precision="fp32"))
MACHINE = ("--cluster", "dgx-a100-80gb:1", "--software", "pytorch-eager")
JOB = ("--model", "gpt2", "--dp", "2", "--global-batch", "2", "--seq-len", "128", *MACHINE)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Return the trace of one step of a device, of rank 0 of 2."""
    return written(tmp_path, *device_step(), distributedInfo={"rank": 0, "world_size": 2}, deviceProperties=[{"name": "NVIDIA A100"}])


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return measurements of one step, and have a fake predict cases."""
    path = tmp_path / "measured.jsonl"
    spread = {"median": 0.05, "q1": 0.049, "q3": 0.052, "repeats": 9}
    data: dict[str, Any] = {"case": case_data(CASE), "device": "cuda", "world_size": 2, "step_s": spread, "losses": [2.0]}
    append_record(path, Record(kind="stamp", key="stamp", data={"device_name": "NVIDIA A100"}))
    append_record(path, Record(kind="step", key=CASE.name, data=data))

    def predict(case: Case, cluster: Cluster, software: Software) -> Prediction:
        assert (cluster.name, software.name) == ("dgx-a100-80gb:1", predicted(Plan()).software)
        return predicted(case.plan)

    monkeypatch.setattr("foretrain.validate.predict_case.predict", predict)
    return path


def test_a_trace_beside_its_job(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The differences are printed, and the folder holds them and both timelines in one file."""
    assert run(["validate", "compare", str(trace), *JOB, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "measured: trace.json, the whole trace, rank 0 of 2, NVIDIA A100" in text
    assert "measured 170 us, error +" in text
    assert "host-bound: predicted" in text
    assert max(map(len, text.partition("class, every")[2].partition("written to")[0].splitlines())) <= 80
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.json", "compare.txt", "merged.json.gz"}
    events = json.loads(gzip.decompress((tmp_path / "out" / "merged.json.gz").read_bytes()))["traceEvents"]
    assert {event["args"]["name"].partition(":")[0] for event in events if event["name"] == "process_name"} == {"predicted", "measured"}


def test_json_is_the_whole_comparison(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes sum to the step on either side, and the largest difference comes first."""
    assert run(["validate", "compare", str(trace), *JOB, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    for side in ("predicted", "measured"):
        assert sum(row[f"{side}_s"] for row in data["classes"]) == pytest.approx(data["step_s"][side])
        assert sum(row[f"{side}_launches"] for row in data["groups"]) == data["launches"][side]
    for rows in (data["classes"], data["groups"], data["phases"]):
        sizes = [abs(row["difference_s"]) for row in rows]
        assert sizes == sorted(sizes, reverse=True)
    assert data["launches"]["measured"] == 5
    reduced = next(row for row in data["groups"] if row["name"] == "all_reduce")
    assert (reduced["measured_bytes"], reduced["measured_launches"]) == (4000, 1)
    assert reduced["predicted_bytes"] > 1e8
    assert data["notes"] == []


def test_what_does_not_fit_together_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace of other ranks than were predicted, and one without a device, are compared all the same, and that is said."""
    path = written(tmp_path, op("aten::mm", 0, 50), distributedInfo={"rank": 0, "world_size": 16})
    assert run(["validate", "compare", str(path), *JOB]) == 0
    text = capsys.readouterr().out
    assert "note: the trace is of 16 ranks, the prediction of 2" in text
    assert "note: the trace has no device" in text


def test_a_trace_of_a_measured_case(trace: Path, records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The case says model, plan and recipe; the machine is given."""
    assert run(["validate", "compare", str(trace), "--case", f"{records}:{CASE.name}", *MACHINE]) == 0
    assert "(2 accelerators)" in capsys.readouterr().out


def test_verdicts_on_measurements(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of records gives the table, and in a folder the report, its data and the picture."""
    assert run(["validate", "compare", str(records), *MACHINE, "--out", str(tmp_path / "out")]) == 0
    assert "1 of 1 measured steps predicted" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.json", "compare.md", "compare.png", "compare.svg"}
    assert run(["validate", "compare", str(records), *MACHINE, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["machine"] == {"device_name": "NVIDIA A100"}
    assert data["cases"][0]["predicted_s"] == pytest.approx(predicted(Plan(dp=2)).step_s)


def test_a_case_is_traced_and_predicted_as_it_is(trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing fake: the trainer's own network of 8 linear layers, 4 micro-batches a rank; the first layer's data needs no gradient."""
    pytest.importorskip("torch")
    path = tmp_path / "mlp.jsonl"
    net = Net(kind="mlp", sizes={"width": 64, "depth": 3, "classes": 16})
    case = Case(name="mlp", net=net, plan=Plan(dp=2), recipe=Recipe(global_batch=8, precision="fp32"))
    spread = {"median": 0.05, "q1": 0.049, "q3": 0.052, "repeats": 9}
    append_record(path, Record(kind="step", key="mlp", data={"case": case_data(case), "world_size": 2, "step_s": spread}))
    assert run(["validate", "compare", str(path), *MACHINE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["coverage"] == 1.0
    assert run(["validate", "compare", str(trace), "--case", f"{path}:mlp", *MACHINE, "--json"]) == 0
    groups = {row["name"]: row for row in json.loads(capsys.readouterr().out)["groups"]}
    assert groups["matmul"]["predicted_launches"] == 4 * (3 * 8 - 1)
    assert groups["all_reduce"]["predicted_bytes"] == 4 * (7 * (64 * 64 + 64) + 64 * 16 + 16)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is said on standard error by arguments that are refused in one to three lines and status 2, without other output."""
    assert run(["validate", "compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert 1 <= len(err.splitlines()) <= 3
    assert "Traceback" not in err
    return err


def test_what_is_no_trace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, empty, no JSON, another program's, several steps without marks."""
    assert "cannot be read" in refused([str(tmp_path / "none.json"), *JOB], capsys)
    assert "cannot be read" in refused([str(tmp_path), *JOB], capsys)
    path = tmp_path / "given.json"
    for text, said in (("", "is empty"), ("{", "is no JSON"), ("{}", "no list traceEvents"), ('{"traceEvents": []}', "none of its 0")):
        path.write_text(text)
        assert said in refused([str(path), *JOB], capsys)
    several = written(tmp_path, op("aten::mm", 0, 5), *(mark("Optimizer.step#SGD.step", at, 1) for at in (6, 9)))
    assert "no marks between training steps" in refused([str(several), *JOB], capsys)


def test_options_that_would_change_nothing_are_refused(trace: Path, records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a case says itself is not said again, and what chooses a trace's partner chooses none for measurements."""
    case = f"{records}:{CASE.name}"
    assert "leave out --tp" in refused([str(trace), "--case", case, *MACHINE, "--tp", "2"], capsys)
    assert "leave out --model, --dp" in refused([str(records), *MACHINE, "--model", "gpt2", "--dp", "2"], capsys)
    assert "--set plan.dp" in refused([str(records), *MACHINE, "--set", "plan.dp=2"], capsys)
    assert "leave it out" in refused([str(records), *MACHINE, "--step", "3"], capsys)
    assert "leave it out" in refused([str(records), *MACHINE, "--case", case], capsys)
    assert "give --model" in refused([str(trace), *MACHINE], capsys)
    assert "it has gpt dp 2" in refused([str(trace), "--case", f"{records}:gpt", *MACHINE], capsys)
    assert "no such step" in refused([str(trace), *JOB, "--step", "3"], capsys)
    assert "leave out compare" not in refused([str(trace), *JOB, "--tp", "5"], capsys)


def test_measurements_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is missing, or has no steps."""
    assert "cannot be read" in refused([str(tmp_path / "none.jsonl"), *MACHINE], capsys)
    path = tmp_path / "some.jsonl"
    path.write_text('{"kind": "micro", "key": "m"}\n')
    assert "no training step" in refused([str(path), *MACHINE], capsys)
