"""Replicas of a module kept alike: DistributedDataParallel, FSDP2, or torch.nn.DataParallel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DataParallel, DistributedDataParallel

from foretrain.sim.plan import Plan
from foretrain.sim.replication import FIRST_DEVICE
from foretrain.units import parse
from foretrain.validate.case import Case
from foretrain.validate.training.layered import blocks_of
from foretrain.validate.training.precision import HALVES
from foretrain.validate.training.ranks import Ranks

TORCH_BUCKET = parse("25 MiB", "B")
"""With this, and only where it is not given, torch reduces a first bucket of 1 MiB."""


def replicate(module: nn.Module, case: Case, ranks: Ranks, bucket_bytes: float) -> nn.Module:
    """Return a module as its replicas run it: itself where it has none."""
    plan = case.plan
    if plan.replication == FIRST_DEVICE:
        return DataParallel(module, device_ids=list(range(plan.dp)))
    group = ranks.group("dp")
    if plan.zero >= 2 and ranks.mesh is not None:
        return shard(module, case, ranks)
    if group is None:
        return module
    # Parameters that tensor parallelism cut are made local for DDP where it gets a mesh.
    where: dict[str, Any] = {"device_mesh": group} if plan.tp > 1 else {"process_group": group.get_group()}
    size = None if bucket_bytes == TORCH_BUCKET else bucket_bytes / parse("1 MiB", "B")
    found = DistributedDataParallel(module, bucket_cap_mb=size, gradient_as_bucket_view=True, **where)
    _compress(found, plan.gradient_compression, where.get("process_group") or group.get_group())
    return found


def shard(module: nn.Module, case: Case, ranks: Ranks) -> nn.Module:
    """Return a module whose blocks are each a unit of FSDP2, and its ends one together, as PyTorch's own example has them.

    The root stays whole from forward to backward, as FSDP2 leaves it.
    """
    plan, precision = case.plan, case.recipe.precision
    mesh = ranks.sharded()
    policy = MixedPrecisionPolicy()
    if precision in HALVES:
        reduced = torch.float32 if case.recipe.grad_dtype == "fp32" else HALVES[precision]
        policy = MixedPrecisionPolicy(param_dtype=HALVES[precision], reduce_dtype=reduced)
    for block in blocks_of(module):
        fully_shard(block, mesh=mesh, reshard_after_forward=plan.zero == 3, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy)
    return module


def _compress(module: DistributedDataParallel, words: str | None, group: Any) -> None:
    if words is None:
        return
    method, _, rank = words.partition(":")
    if method == "powersgd":
        state = powerSGD_hook.PowerSGDState(group, matrix_approximation_rank=int(rank), start_powerSGD_iter=2)
        module.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    else:
        module.register_comm_hook(group, default_hooks.fp16_compress_hook if method == "fp16" else default_hooks.bf16_compress_hook)


def accumulating(module: nn.Module, plan: Plan) -> Callable[[bool], contextlib.AbstractContextManager[None]]:
    """Return what a micro-batch runs in, given whether it is the last: gradients stay where they are until the plan reduces them."""

    @contextlib.contextmanager
    def within(last: bool) -> Iterator[None]:  # noqa: FBT001  # the one thing it is about
        replicated = module if isinstance(module, DistributedDataParallel) and plan.gradient_sync != "micro-batch" else None
        with contextlib.nullcontext() if replicated is None or last else replicated.no_sync():
            yield

    return within
