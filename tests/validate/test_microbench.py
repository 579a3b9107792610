"""A budget of microbenchmarks: kept in time, resumed, and unharmed by what fails."""

import json
import time

import pytest

from foretrain.errors import OutputError, UsageError
from foretrain.validate import microbench
from foretrain.validate.measuring import host
from foretrain.validate.measuring.bench import Bench, Lab, Machine
from foretrain.validate.measuring.team import Team
from foretrain.validate.microbench import measure
from foretrain.validate.records import of_kind, read_records

torch = pytest.importorskip("torch")
ALONE = {"launch"}


def test_a_budget_is_kept_and_a_second_start_goes_on(tmp_path):
    path, threads = tmp_path / "x.jsonl", torch.get_num_threads()
    began_s = time.perf_counter()
    first = measure("cpu", 1.0, path, only={"launch", "matmul"}, ranks=1)
    assert time.perf_counter() - began_s < 1.1 + 1.0  # a busy test machine
    assert first[0].kind == "stamp"
    assert of_kind(first, "micro")
    second = measure("cpu", 1.0, path, only={"launch", "matmul"}, ranks=1)
    assert len(second) > len(first)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines)
    assert torch.get_num_threads() == threads


def test_records_hold_what_the_contract_says(tmp_path):
    record = of_kind(measure("cpu", 0.6, tmp_path / "x.jsonl", only={"matmul"}, ranks=1), "micro")[0]
    assert {"bench", "dtype", "shape", "seconds", "flop", "bytes"} <= set(record.data)
    assert record.data["shape"]["busy_ranks"] == 1
    assert record.spread("seconds").median > 0


def test_progress_counts_seconds(tmp_path):
    seen = []
    measure("cpu", 1.0, tmp_path / "x.jsonl", only=ALONE, ranks=1, progress=lambda *one: seen.append(one))
    assert seen[-1] == (1, 1, "measured")
    assert all(done <= total for done, total, _ in seen)


def test_an_interrupt_keeps_what_was_measured(tmp_path):
    path = tmp_path / "x.jsonl"
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure("cpu", 10.0, path, only=ALONE, ranks=1, progress=interrupt)
    assert len(of_kind(read_records(path), "micro")) == 2


def test_what_does_not_fit_is_skipped_with_the_reason_and_tried_again(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    monkeypatch.setattr(host, "available_bytes", lambda: 1000)
    found = of_kind(measure("cpu", 0.6, path, only={"matmul"}, ranks=1), "micro")
    assert all("are free" in record.data["skipped"] for record in found)
    monkeypatch.undo()
    assert "skipped" not in of_kind(measure("cpu", 0.6, path, only={"matmul"}, ranks=1), "micro")[0].data


def test_memory_that_runs_out_is_said_and_not_raised():
    """2⁵⁴ bytes are in no machine: torch itself refuses."""
    shape = {"batch": 1, "m": 2**26, "n": 2**26, "k": 1, "layout": "nt"}
    bench = Bench(name="matmul", dtype="fp32", shape=shape)
    with Team(Machine(device="cpu")) as team:
        data = microbench._data(bench, Lab(device="cpu"), team)
    assert "seconds" not in data
    assert "memory" in data["skipped"]


def test_a_place_that_cannot_be_written_stops_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        measure("cpu", 1.0, tmp_path / "file" / "x.jsonl", only=ALONE, ranks=1)


def test_a_disk_that_fills_stops_it_and_keeps_the_rest(tmp_path):
    path = tmp_path / "x.jsonl"

    def fill(*_):
        if path.exists() and len(path.read_text().splitlines()) == 3:
            path.rename(tmp_path / "kept.jsonl")
            path.mkdir()

    with pytest.raises(OutputError, match="it resumes"):
        measure("cpu", 10.0, path, only=ALONE, ranks=1, progress=fill)
    assert len(read_records(tmp_path / "kept.jsonl")) == 3


def test_wrong_devices_are_named(tmp_path):
    with pytest.raises(UsageError, match="'tpu' is unknown"):
        measure("tpu", 1.0, tmp_path / "x.jsonl")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="torch sees no GPU"):
            measure("cuda", 1.0, tmp_path / "x.jsonl")


def test_a_file_of_another_device_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"kind": "stamp", "key": "stamp", "device": "cuda"}\n')
    with pytest.raises(UsageError, match="holds measurements of cuda"):
        measure("cpu", 1.0, path)
