"""What torch puts on the wire in two processes is, call by call and byte by byte, what the simulator says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import foretrain as ft  # noqa: E402  # after torch is known to be there
from foretrain.errors import UsageError  # noqa: E402
from foretrain.sim.schedules.gpipe import GPipe  # noqa: E402
from foretrain.sim.wire import collectives  # noqa: E402
from foretrain.software.load import load_software  # noqa: E402
from tests.validate.training.wire_nets import (  # noqa: E402
    BATCH,
    CHANNELS,
    HIDDEN,
    LAYERS,
    MICRO_BATCHES,
    NETS,
    SEQ,
    VOCAB,
    inputs,
    loss,
)

ROOT = Path(__file__).parents[3]
PATIENCE_S = 240
FP32 = 4
Wire = list[tuple[str, float]]

PP = {"pp": 2, "micro_batch": BATCH // MICRO_BATCHES}
JOBS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "ddp mlp": ("mlp", {"dp": 2, "micro_batch": 4}, {}, "pytorch-eager"),
    "ddp gpt": ("gpt", {"dp": 2, "micro_batch": 4}, {}, "pytorch-eager"),
    "ddp conv": ("conv", {"dp": 2, "micro_batch": 4}, {}, "pytorch-eager"),
    "ddp gpt, every micro-batch": ("gpt", {"dp": 2, "micro_batch": 2, "gradient_sync": "micro-batch"}, {}, "pytorch-eager"),
    "fsdp mlp": ("mlp", {"dp": 2, "micro_batch": 4, "zero": 3}, {}, "torchtitan"),
    "fsdp gpt": ("gpt", {"dp": 2, "micro_batch": 4, "zero": 3}, {}, "torchtitan"),
    "fsdp gpt, clipped": ("gpt", {"dp": 2, "micro_batch": 4, "zero": 3}, {"clip": "global"}, "torchtitan"),
    "fsdp gpt, kept": ("gpt", {"dp": 2, "micro_batch": 4, "zero": 2}, {}, "torchtitan"),
    "fsdp gpt, kept, every micro-batch": ("gpt", {"dp": 2, "micro_batch": 2, "zero": 2}, {}, "torchtitan"),
    "fsdp gpt, bf16": ("gpt", {"dp": 2, "micro_batch": 4, "zero": 3}, {"precision": "bf16"}, "torchtitan"),
    "tp gpt": ("gpt", {"tp": 2, "micro_batch": BATCH}, {}, "torchtitan"),
    "tp+sp gpt": ("gpt", {"tp": 2, "micro_batch": BATCH, "sequence_parallel": True}, {}, "pytorch-loop"),
    "tp+sp gpt, clipped": ("gpt", {"tp": 2, "micro_batch": BATCH, "sequence_parallel": True}, {"clip": "global"}, "torchtitan"),
    "pp gpt, 1f1b": ("gpt", PP, {}, "pytorch-eager"),
    "pp gpt, gpipe": ("gpt", {**PP, "schedule": GPipe()}, {}, "pytorch-eager"),
}
EQUAL = ("ddp mlp", "ddp gpt", "ddp gpt, every micro-batch", "fsdp mlp", "fsdp gpt", "fsdp gpt, kept", "fsdp gpt, kept, every micro-batch",
         "fsdp gpt, bf16", "tp gpt")  # fmt: skip
CALLS = {
    "c10d::allreduce_": "all_reduce", "c10d::_allgather_base_": "all_gather", "c10d::allgather_into_tensor_coalesced_": "all_gather",
    "c10d::_reduce_scatter_base_": "reduce_scatter", "c10d::reduce_scatter_tensor_coalesced_": "reduce_scatter",
    "c10d::send": "send", "c10d::recv_": "recv", "c10d::broadcast_": "broadcast",
}  # fmt: skip


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> list[dict[str, Any]]:
    """Return what each of two processes saw, by case; they run once, however many workers test."""
    base = tmp_path_factory.getbasetemp()
    room = (base if worker_id == "master" else base.parent) / "wire"
    try:
        room.mkdir()
    except FileExistsError:
        return _awaited(room)
    command = [sys.executable, "-m", "tests.validate.training.wire_worker"]
    given = [[str(rank), str(room / "store"), str(room / f"{rank}.json")] for rank in range(2)]
    ranks = [subprocess.Popen([*command, *one], cwd=ROOT, stderr=subprocess.PIPE, text=True) for one in given]
    faults = [one.communicate(timeout=PATIENCE_S)[1] for one in ranks]
    (room / "done").write_text("".join(faults) if any(one.returncode for one in ranks) else "")
    return _awaited(room)


def _awaited(room: Path) -> list[dict[str, Any]]:
    until = time.monotonic() + PATIENCE_S
    while not (room / "done").exists():
        assert time.monotonic() < until, "the processes have not ended"
        time.sleep(0.1)
    assert all((room / f"{rank}.json").exists() for rank in range(2)), (room / "done").read_text()
    return [json.loads((room / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def models() -> dict[str, ft.Model]:
    """Return the traced networks."""
    return {name: ft.from_module(made(), inputs(name, 2), loss=loss) for name, made in NETS.items()}


def predicted(models: Mapping[str, ft.Model], case: str, stage: int = 0, software: str | None = None) -> Wire:
    """Return what the simulator says that a rank of a case sends."""
    net, plan, recipe, own = JOBS[case]
    given = ft.Recipe(**{"global_batch": BATCH, "precision": "fp32", **recipe})
    entries = collectives(models[net], ft.load_cluster("dgx-h100:1"), ft.Plan(**plan), given, load_software(software or own), stage=stage)
    assert {entry.ranks for entry in entries} == {2}
    return [(entry.op, entry.size_bytes) for entry in entries]


def logged(seen: list[dict[str, Any]], case: str, rank: int = 0) -> Wire:
    """Return what a process logged."""
    return [(entry["op"], entry["bytes"]) for entry in seen[rank][case]["log"]]


@pytest.mark.parametrize("case", JOBS)
def test_the_log_misses_nothing_that_the_profiler_counts(seen: list[dict[str, Any]], case: str) -> None:
    """Every call into c10d, from C++ or Python, is in the log once, and has its ranks."""
    for rank, one in enumerate(seen):
        counted: dict[str, int] = {}
        for name, count in one[case]["profiler"].items():
            counted[CALLS[name]] = counted.get(CALLS[name], 0) + count
        ops = [entry["op"] for entry in one[case]["log"]]
        assert {op: ops.count(op) for op in ops} == counted
        ways = {"send": [rank, 1 - rank], "recv": [1 - rank, rank]}
        assert all(entry["group"] == ways.get(entry["op"], [0, 1]) for entry in one[case]["log"])


@pytest.mark.parametrize("case", EQUAL)
def test_both_ranks_send_what_the_simulator_says(seen: list[dict[str, Any]], models: dict[str, ft.Model], case: str) -> None:
    """DDP's buckets, FSDP2's groups of parameters, and the collectives of tensor parallelism: equal in order, kind and bytes."""
    assert logged(seen, case) == logged(seen, case, 1) == predicted(models, case)


@pytest.mark.parametrize("case", ["pp gpt, 1f1b", "pp gpt, gpipe"])
@pytest.mark.parametrize("stage", [0, 1])
def test_stages_send_and_take_what_the_simulator_says(
    seen: list[dict[str, Any]], models: dict[str, ft.Model], case: str, stage: int
) -> None:  # fmt: skip
    """Each micro-batch's boundary tensor goes forward and its gradient back, in the schedule's order."""
    boundary = BATCH // MICRO_BATCHES * SEQ * HIDDEN * FP32
    assert logged(seen, case, stage) == predicted(models, case, stage)
    assert {size for _, size in predicted(models, case, stage)} == {boundary}


def test_ddp_sends_buffers_before_its_first_forward_pass(seen: list[dict[str, Any]], models: dict[str, ft.Model]) -> None:
    """DDP copies rank 0's running statistics, of each dtype as one, before a forward pass that follows a reduction."""
    real = logged(seen, "ddp conv")
    assert real == predicted(models, "ddp conv")
    assert [entry for entry in real if entry[0] == "broadcast"] == real[:2] == [
        ("broadcast", 2 * 2 * CHANNELS * FP32), ("broadcast", 2 * 8),
    ]  # fmt: skip


def test_clipping_exchanges_one_norm_a_tensor(seen: list[dict[str, Any]], models: dict[str, ft.Model]) -> None:
    """PyTorch reduces the norms of all tensors side by side; the simulator reduces their sum, as Megatron-LM and FSDP1 do."""
    real, ours = logged(seen, "fsdp gpt, clipped"), predicted(models, "fsdp gpt, clipped")
    assert real[:-1] == ours[:-1]
    assert (real[-1], ours[-1]) == (("all_reduce", FP32 * len(list(NETS["gpt"]().parameters()))), ("all_reduce", FP32))


def test_sequence_parallelism_reduces_norms_where_they_are_read(seen: list[dict[str, Any]], models: dict[str, ft.Model]) -> None:
    """Torch reduces the gradients of norms in each of AdamW's three operators that read them.

    Megatron-LM reduces them once, in one buffer, with the biases of row-parallel layers, which it adds to a rank's own rows.
    """
    real, once = logged(seen, "tp+sp gpt"), predicted(models, "tp+sp gpt", software="torchtitan")
    norms, biases = 2 * (2 * LAYERS + 1), 2 * LAYERS
    assert real == predicted(models, "tp+sp gpt")
    assert real[len(once) - 1 :] == [("all_reduce", HIDDEN * FP32)] * (3 * norms)
    assert once == [*real[: len(once) - 1], ("all_reduce", (norms + biases) * HIDDEN * FP32)]


def test_tensor_parallelism_has_its_closed_form(models: dict[str, ft.Model]) -> None:
    """Forward: the embedding and two reductions a layer, three of the loss; backward: two a layer and the head's."""
    rows = ("all_reduce", BATCH * SEQ * HIDDEN * FP32)
    small = ("all_reduce", BATCH * SEQ * FP32)
    assert predicted(models, "tp gpt") == [rows] * (1 + 2 * LAYERS) + [small] * 3 + [rows] * (2 * LAYERS + 1)


def test_sharding_gathers_twice_and_scatters_once(models: dict[str, ft.Model]) -> None:
    """Layers are gathered forward and backward, the ends of the model once; every gradient is scattered once."""
    layer, ends = models["gpt"].layers[0][0].parameters * FP32, 2 * (VOCAB * HIDDEN + HIDDEN) * FP32
    found = predicted(models, "fsdp gpt")
    assert sum(size for op, size in found if op == "all_gather") == 2 * LAYERS * layer + ends
    assert sum(size for op, size in found if op == "reduce_scatter") == LAYERS * layer + ends
    assert sum(size for _, size in predicted(models, "fsdp gpt, kept")) == 2 * (LAYERS * layer + ends)


def test_a_stage_that_is_none_is_refused(models: dict[str, ft.Model]) -> None:
    """The error says which stages there are."""
    with pytest.raises(UsageError, match="stage=2 is none of the pipeline's 2; give 0 to 1"):
        predicted(models, "pp gpt, gpipe", stage=2)
