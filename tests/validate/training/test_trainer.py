"""The trainer on CPU processes: every layout computes what one process computes, faults cost one case, and a next start resumes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from foretrain.cli import run
from foretrain.errors import OutputError, UsageError
from foretrain.sim.recipe import Recipe
from foretrain.validate.case import Case, Net, net_of, plan_of
from foretrain.validate.records import Record, append_record, read_records
from foretrain.validate.trainer import Settings, key, measured, run_suite
from foretrain.validate.training.join import joined

pytest.importorskip("torch")

NETS = {
    "mlp": "mlp:width=16,depth=4,classes=8",
    "gpt": "gpt:layers=4,hidden=16,heads=2,seq=8,vocab=32",
    "resnet": "resnet:image=32,classes=10",
}
LAYOUTS = {
    "mlp": ("dp=2", "dp=2,zero=3", "tp=2", "tp=2,sequence_parallel=true", "pp=2"),
    "gpt": (
        "dp=2", "dp=2,zero=1", "dp=2,zero=2", "dp=2,zero=3,recompute=full", "dp=2,gradient_sync=micro-batch", "tp=2",
        "tp=2,sequence_parallel=true", "pp=2", "pp=2,schedule=gpipe,layers_per_stage=3+1", "pp=2,vpp=2,schedule=interleaved-1f1b",
        "pp=2,schedule=zb-h1", "pp=2,vpp=2,schedule=zb-v",
    ),
    "resnet": ("dp=2", "pp=2"),
}  # fmt: skip
FAULTS = """
import os, signal, torch

def large():
    return torch.nn.Linear(10**8, 10**8)

def killed():
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.nn.Linear(4, 4)
"""
QUICK = Settings(seconds=0.03, visits=1)


def case(net: str, layout: str, **recipe: object) -> Case:
    """Return a case of some micro-batches, but one where tensors are cut, which is slow.

    Plain momentum shows gradients of a wrong scale.
    """
    plan = plan_of(layout)
    plan = replace(plan, micro_batch=2 if net == "resnet" else 16 if plan.tp > 1 else 4)
    given = {"global_batch": 4 if net == "resnet" else 16, "precision": "fp32", "optimizer": "momentum", "clip": "global", **recipe}
    return Case(name=f"{net}/{layout}", net=net_of(NETS[net]), plan=plan, recipe=Recipe(**given))  # type: ignore[arg-type]


def faulty(name: str, layout: str) -> Case:
    net = Net(kind="module", factory=f"faulty_modules:{name}", sample_shape=(4,))
    return Case(name=name, net=net, plan=plan_of(layout), recipe=Recipe(global_batch=2, precision="fp32"))


def cases() -> list[Case]:
    found = [*(case(net, "dp=1") for net in NETS), faulty("large", "dp=1")]
    found += [case(net, layout) for net, layouts in LAYOUTS.items() for layout in layouts]
    return [*found, faulty("killed", "dp=2")]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Record]]:
    """Return the file and the records of one launch of one process, and one of two."""
    folder = tmp_path_factory.mktemp("trainer")
    (folder / "faulty_modules.py").write_text(FAULTS)
    path = folder / "measurements.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        records = run_suite(cases(), path, replace(QUICK, trace=folder / "traces"))
    return path, {record.data["case"]["name"]: record for record in records}


@pytest.mark.parametrize(("net", "layout"), [(net, layout) for net, layouts in LAYOUTS.items() for layout in layouts])
def test_a_layout_trains_as_one_process_does(held, net, layout):
    """The first losses, on the same data from the same weights, follow the same gradients; batch norm too, with equal micro-batches."""
    alone, cut = held[1][f"{net}/dp=1"].data, held[1][f"{net}/{layout}"].data
    assert cut["world_size"] == 2
    assert cut["losses"] == pytest.approx(alone["losses"], rel=2e-3 if net == "resnet" else 1e-5)
    assert cut["parameters"] == alone["parameters"]
    assert cut["losses"][0] != cut["losses"][2]


def test_a_record_holds_what_was_measured(held):
    data = held[1]["gpt/dp=2"].data
    step = held[1]["gpt/dp=2"].spread("step_s")
    assert step.repeats >= 2
    assert 0 < step.q1 <= step.median <= step.q3
    assert data["cpu_s"]["median"] > 0
    assert (data["device_s"], data["threads"], data["backend"], data["device"]) == (None, 1, "gloo", "cpu")
    assert data["memory"]["rss_bytes"] > 10**7
    assert data["energy"]["source"] == "unavailable"
    reduced = sum(one["bytes"] for one in data["collectives"] if one["op"] == "all_reduce")
    assert reduced == pytest.approx(4 * data["parameters"])  # and nothing else: the norm needs no exchange
    assert "traceEvents" in json.loads(Path(data["trace"]).read_text())


def test_what_is_sent_follows_from_the_layout(held):
    """FSDP gathers parameters, tensor parallelism reduces activations twice a block and pass, a pipeline sends one each micro-batch."""
    gathered = {one["op"] for one in held[1]["gpt/dp=2,zero=3,recompute=full"].data["collectives"]}
    assert {"all_gather", "reduce_scatter"} <= gathered
    rows = 4 * 4 * 8 * 16  # bytes of the activations of a micro-batch of 4
    whole = [one for one in held[1]["gpt/tp=2"].data["collectives"] if one["op"] == "all_reduce" and one["bytes"] == 4 * rows]
    assert len(whole) == 4 * (2 + 2) + 2  # of the blocks, of the table of tokens forward and of the output layer backward
    sent = [one for one in held[1]["gpt/pp=2"].data["collectives"] if one["op"] == "send"]
    assert [one["bytes"] for one in sent] == [rows] * 4


def test_a_fault_costs_its_case_alone(held):
    """Memory that ran out and a killed process are said; the cases around them are measured."""
    records = held[1]
    assert "out of memory" in records["large"].data["skipped"]
    assert records["killed"].data["skipped"].startswith("rank 1 of 2 was ended by SIGKILL")
    assert len(measured(list(records.values()))) == len(records) - 2


def test_a_next_start_runs_nothing_again(held):
    path, records = held
    before = path.read_bytes()
    began = time.perf_counter()
    again = run_suite([one for one in cases() if one.name not in ("large", "killed")], path, QUICK)
    assert time.perf_counter() - began < 3
    assert path.read_bytes() == before
    assert [record.data for record in again] == [records[record.data["case"]["name"]].data for record in again]
    assert key(cases()[0], "cpu") in {record.key for record in read_records(path)}


def test_visits_are_spread_over_a_run_and_a_next_start_adds_what_is_missing(tmp_path):
    """Repeats of all visits count together; a file of one visit gets the second alone, and an interrupted case keeps what it has."""
    path = tmp_path / "measurements.jsonl"
    few = [case("mlp", "dp=1")]
    first = run_suite(few, path, replace(QUICK, seconds=0.1))
    told = []
    both = run_suite(few, path, replace(QUICK, visits=2), lambda *what: told.append(what))
    assert [what[:2] for what in told] == [(1, 2), (2, 2)]
    for before, after in zip(first, both, strict=True):
        found, held = (one.data["samples"]["step_s"] for one in (after, before))
        assert found[: len(held)] == held
        assert len(found) == after.spread("step_s").repeats > len(held)
        assert 0 < after.spread("step_s").median <= max(found)
        assert (before.data["visits"], after.data["visits"]) == (1, 2)
        assert after.data["losses"] == before.data["losses"]
    assert [record.data for record in run_suite(few, path, replace(QUICK, visits=2))] == [record.data for record in both]


def test_ctrl_c_keeps_what_was_measured_and_leaves_no_process(tmp_path):
    out = tmp_path / "measurements.jsonl"
    append_record(out, Record(kind="stamp", key="stamp", data={"device": "cpu"}))
    words = ["--model", NETS["mlp"], "--plan", "dp=2", "--seconds", "60", "--device", "cpu", "--out", str(out)]
    launcher = subprocess.Popen([sys.executable, "-m", "foretrain", "validate", "trainer", *words], stderr=subprocess.PIPE, text=True)
    try:
        workers = until(lambda: children(launcher.pid), 60)
        launcher.send_signal(signal.SIGINT)
        _, said = launcher.communicate(timeout=30)
    finally:
        launcher.kill()
        launcher.wait()
    assert launcher.returncode == 130
    assert "keeps what was measured" in said
    assert len(said.splitlines()) <= 3
    assert not [one for one in workers if Path(f"/proc/{one}").exists()]
    assert [record.kind for record in read_records(out)] == ["stamp"]


def until(found, most_s: float):
    """Return what `found` returns once it is something."""
    end = time.monotonic() + most_s
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def children(parent: int) -> list[int]:
    """Return the processes that a process started."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if folder.name.isdecimal() and int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return found


def test_a_place_that_cannot_be_written_is_said_before_anything_runs(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        run_suite([case("mlp", "dp=1")], tmp_path / "file" / "out.jsonl", QUICK)
    words = ["--model", "mlp", "--device", "cpu", "--out", str(tmp_path / "file" / "out.jsonl")]
    assert run(["validate", "trainer", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) <= 3


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "--suite quick"),
        (["--suite", "quick", "--plan", "dp=2"], "leave out --plan"),
        (["--model", "gpt", "--sample", "3x3"], "--sample"),
        (["--model", "torch.nn:Identity", "--sample", "3x"], "3x224x224"),
        (["--model", "gpt", "--plan", "dp=2", "--world-size", "4"], "2 processes"),
        (["--model", "gpt", "--device", "gpu"], "auto, cpu or cuda"),
        (["--model", "gpt", "--seconds", "0"], "--seconds"),
        (["--model", "resnet", "--plan", "tp=2", "--device", "cpu"], "convolutions"),
    ],
)
def test_a_mistake_is_said_in_three_lines(words, answer, capsys):
    assert run(["validate", "trainer", *words]) == 2
    said = capsys.readouterr().err
    assert answer in said
    assert len(said.splitlines()) <= 3


def test_two_cases_of_one_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match="name of its own"):
        run_suite([case("mlp", "dp=1")] * 2, tmp_path / "out.jsonl", QUICK)


def test_a_launch_is_joined_as_torchrun_and_slurm_describe_it():
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "host", "MASTER_PORT": "1", "LOCAL_RANK": "1", "HOME": "x"}
    assert joined(torchrun) == {name: torchrun[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")}
    slurm = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "a,b", "SLURM_JOB_ID": "7"}
    found = joined(slurm)
    assert found == {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "20007"}
    assert joined({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert joined(dict(os.environ)) is None
    with pytest.raises(UsageError, match="MASTER_ADDR"):
        joined({"RANK": "0", "WORLD_SIZE": "2"})
