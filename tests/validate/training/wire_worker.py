"""One of two processes that train small networks over gloo and write what they put on the wire: `python -m … RANK STORE OUT`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from foretrain.validate.training.collective_log import log_collectives
from tests.validate.training.wire_nets import BATCH, LAYERS, MICRO_BATCHES, NETS, inputs, loss

Step = Callable[[], None]
WARM = 2
"""Steps before the one that counts: DDP makes its buckets anew after the first, pipelines exchange shapes in it."""


def replicated(net: str, micro_batches: int = 1) -> Step:
    """Return a step of DDP."""
    model = DistributedDataParallel(NETS[net]())
    return _plain(model, net, BATCH // 2, micro_batches=micro_batches)


def sharded(
    net: str, policy: MixedPrecisionPolicy | None = None, *, keep: bool = False, clip: bool = False, micro_batches: int = 1
) -> Step:
    """Return a step of FSDP2: one group of parameters a block, the rest in the root's."""
    model: Any = NETS[net]()
    given = {"mp_policy": policy or MixedPrecisionPolicy(), "reshard_after_forward": not keep}
    for block in model.blocks:
        fully_shard(block, **given)
    fully_shard(model, mp_policy=given["mp_policy"])
    return _plain(model, net, BATCH // 2, clip=clip, micro_batches=micro_batches)


def tensor(*, sequence: bool, clip: bool = False) -> Step:
    """Return a step of tensor parallelism over layers, embedding, head and loss; with `sequence`, rows are shared in between."""
    mesh, model = init_device_mesh("cpu", (2,)), NETS["gpt"]()
    rows = Shard(1) if sequence else Replicate()
    plan: dict[str, Any] = {
        "embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=rows),
        "head": ColwiseParallel(input_layouts=rows, use_local_output=False),
    }
    if sequence:
        plan["norm"] = SequenceParallel()
    for number in range(LAYERS):
        name = f"blocks.{number}"
        for part in ("attention", "mlp"):
            plan[f"{name}.{part}"] = PrepareModuleInput(input_layouts=rows, desired_input_layouts=Replicate(), use_local_output=False)
        columns = ("attention.query", "attention.key", "attention.value", "mlp.0")
        plan |= {f"{name}.{one}": ColwiseParallel() for one in columns}
        plan |= {f"{name}.{one}": RowwiseParallel(output_layouts=rows) for one in ("attention.out", "mlp.2")}
        if sequence:
            plan |= {f"{name}.norm{one}": SequenceParallel() for one in (1, 2)}
    parallelize_module(model, mesh, plan)
    step = _plain(model, "gpt", BATCH, clip=clip)

    def parallel() -> None:
        with loss_parallel():
            step()

    return parallel


def pipelined(schedule: Any) -> Step:
    """Return a step of a pipeline of two stages."""
    rank, model = distributed.get_rank(), NETS["gpt"]()
    model.blocks = model.blocks[: LAYERS // 2] if rank == 0 else model.blocks[LAYERS // 2 :]
    if rank == 0:
        model.norm = model.head = None
    else:
        model.embedding = None
    stage = PipelineStage(model, rank, 2, torch.device("cpu"))
    runner = schedule(stage, MICRO_BATCHES, loss_fn=lambda out, target: loss(out, target.flatten()))
    data = inputs("gpt", BATCH)

    def step() -> None:
        runner.step(data) if rank == 0 else runner.step(target=data)

    return step


def _plain(model: nn.Module, net: str, samples: int, *, micro_batches: int = 1, clip: bool = False) -> Step:
    data, optimizer = inputs(net, samples), torch.optim.AdamW(model.parameters())

    def step() -> None:
        for part in data.chunk(micro_batches):
            loss(model(part)).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


MIXED = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
CASES: dict[str, Callable[[], Step]] = {
    "ddp mlp": lambda: replicated("mlp"),
    "ddp conv": lambda: replicated("conv"),
    "ddp gpt": lambda: replicated("gpt"),
    "ddp gpt, every micro-batch": lambda: replicated("gpt", 2),
    "fsdp mlp": lambda: sharded("mlp"),
    "fsdp gpt": lambda: sharded("gpt"),
    "fsdp gpt, clipped": lambda: sharded("gpt", clip=True),
    "fsdp gpt, kept": lambda: sharded("gpt", keep=True),
    "fsdp gpt, kept, every micro-batch": lambda: sharded("gpt", keep=True, micro_batches=2),
    "fsdp gpt, bf16": lambda: sharded("gpt", MIXED),
    "tp gpt": lambda: tensor(sequence=False),
    "tp+sp gpt": lambda: tensor(sequence=True),
    "tp+sp gpt, clipped": lambda: tensor(sequence=True, clip=True),
    "pp gpt, 1f1b": lambda: pipelined(Schedule1F1B),
    "pp gpt, gpipe": lambda: pipelined(ScheduleGPipe),
}


def seen(step: Step) -> dict[str, Any]:
    """Return what one step puts on the wire: by the log, and how often each operator of c10d ran by the profiler in another step."""
    for _ in range(WARM):
        step()
    with log_collectives() as log:
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    counted = {one.key: one.count for one in profiler.key_averages() if one.key.startswith("c10d::")}
    return {"log": log, "profiler": counted}


def main() -> None:
    """Run every case."""
    rank, store, out = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = {}
    for name, make in CASES.items():
        torch.manual_seed(0)
        found[name] = seen(make())
    out.write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
