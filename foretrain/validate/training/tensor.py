"""Tensor parallelism of the networks that take it: pairs of linear layers, tables by rows, the output layer by columns.

**Source:** Shoeybi et al., arXiv:1909.08053, section 3; Korthikanti et al., arXiv:2205.05198, section 4.2.2 (sequence parallelism).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from foretrain.validate.training.layered import Layered
from foretrain.validate.training.nets import Loss


def cut_by_tensor(net: Layered, mesh: DeviceMesh, kind: str, *, sequence_parallel: bool) -> None:
    """Cut a network, or a chunk of one, in place. What passes between its blocks is whole, or cut by sequence (an MLP's by rows)."""
    rows: Placement = Shard(0 if kind == "mlp" else 1) if sequence_parallel else Replicate()
    if net.stem is not None:
        (_mlp_stem if kind == "mlp" else _gpt_stem)(net.stem, mesh, rows)
    for block in net.blocks:
        parallelize_module(block, mesh, _mlp_block(rows) if kind == "mlp" else _gpt_block(rows))
    if net.head is not None:
        last = ColwiseParallel(input_layouts=rows, output_layouts=Shard(-1))
        parallelize_module(net.head, mesh, last if kind == "mlp" else {"output": last, **_norms(rows, "norm")})


def parallel_loss(loss: Loss, mesh: DeviceMesh) -> Loss:
    """Return the loss of logits of which every process has some classes; it and its backward run in `loss_parallel`."""

    def whole(outputs: torch.Tensor, targets: torch.Tensor | None) -> torch.Tensor:
        found = loss(DTensor.from_local(outputs, mesh, [Shard(outputs.ndim - 1)], run_check=False), targets)
        return found.full_tensor() if isinstance(found, DTensor) else found

    return whole


def _mlp_stem(stem: nn.Module, mesh: DeviceMesh, rows: Placement) -> None:
    """Leave the layer whole; every process takes its rows of what comes out."""
    if not rows.is_replicate():
        parallelize_module(stem, mesh, PrepareModuleOutput(output_layouts=Replicate(), desired_output_layouts=rows))


def _gpt_stem(stem: nn.Module, mesh: DeviceMesh, rows: Placement) -> None:
    """Cut the table of tokens by rows; positions are whole, or cut as the sequence is."""
    place: Placement = Replicate() if rows.is_replicate() else Shard(0)
    stem.register_parameter("positions", nn.Parameter(distribute_tensor(stem.get_parameter("positions"), mesh, [place])))
    tokens = RowwiseParallel(input_layouts=Replicate(), output_layouts=rows, use_local_output=False)
    parallelize_module(stem, mesh, {"tokens": tokens})
    stem.register_forward_hook(_local)


def _local(module: nn.Module, inputs: Any, output: Any) -> Any:  # as torch calls it
    return output.to_local() if isinstance(output, DTensor) else output


def _mlp_block(rows: Placement) -> dict[str, Any]:
    return {"up": ColwiseParallel(input_layouts=rows), "down": RowwiseParallel(output_layouts=rows)}


def _gpt_block(rows: Placement) -> dict[str, Any]:
    # Entered once for the three projections, so that their gradients are reduced once.
    enter = PrepareModuleInput(input_layouts=(rows,), desired_input_layouts=(Replicate(),))
    columns = {f"attention.{name}": ColwiseParallel() for name in ("query", "key", "value")}
    return {
        "attention": enter, **columns, "attention.out": RowwiseParallel(output_layouts=rows),
        "mlp": enter, "mlp.up": ColwiseParallel(), "mlp.down": RowwiseParallel(output_layouts=rows), **_norms(rows, "norm1", "norm2"),
    }  # fmt: skip


def _norms(rows: Placement, *names: str) -> dict[str, Any]:
    return {} if rows.is_replicate() else {name: SequenceParallel(use_local_output=True) for name in names}
