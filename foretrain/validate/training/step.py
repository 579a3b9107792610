"""A case made ready to train: `step()` is one step of its optimizer, as a training loop runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor.parallel import loss_parallel

from foretrain.sim.replication import FIRST_DEVICE
from foretrain.validate.case import Case
from foretrain.validate.training.blocks import checkpoint, compile_module, recomputed
from foretrain.validate.training.layered import Layered
from foretrain.validate.training.nets import Built, Loss, build
from foretrain.validate.training.optimizers import clip, optimizer_of
from foretrain.validate.training.pipeline import chunk, parts_here, pipeline
from foretrain.validate.training.precision import HALVES, InPrecision, autocast, set_matmul
from foretrain.validate.training.ranks import Ranks
from foretrain.validate.training.replicas import accumulating, replicate
from foretrain.validate.training.tensor import cut_by_tensor, parallel_loss

Batch = tuple[torch.Tensor, torch.Tensor]
Pass = Callable[[], list[torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A case on this process. `step()` returns the losses of the micro-batches that it knows; `parameters` are the whole model's."""

    step: Pass
    parameters: int


def ready(case: Case, ranks: Ranks, device: torch.device, *, bucket_bytes: float, seed: int = 0) -> Training:
    """Return a case ready to train: the same weights and the same global batch whatever its plan."""
    set_matmul(case.recipe.precision)
    built = build(case.net, seed=seed, device=str(device))
    parameters = sum(one.numel() for one in built.module.parameters())
    batch = _own_batch(case, built, ranks, seed, device)
    again = recomputed(built.module, case.plan.recompute)
    modules = _chunks(case, built.module, ranks)
    for module in modules:
        _cut(module, case, ranks)
        checkpoint(module, again)
    inner = [_in_precision(module, case, ranks, device.type) for module in modules]
    if case.compiled:
        for module in inner:
            compile_module(module, whole=case.plan.tp * case.plan.pp == 1 and case.plan.zero < 2)
    wrapped = [replicate(module, case, ranks, bucket_bytes) for module in inner]
    loss = _loss(case, built.loss, ranks, device.type)
    scaler = torch.amp.GradScaler(device.type, enabled=case.recipe.precision == "fp16")
    if case.plan.pp > 1:
        run: Pass = pipeline(wrapped, ranks, batch, loss, case.microbatches).step
    else:
        run = _accumulated(wrapped[0], case, batch, loss, scaler)
    return Training(step=_stepping(case, ranks, wrapped, run, scaler), parameters=parameters)


def _own_batch(case: Case, built: Built, ranks: Ranks, seed: int, device: torch.device) -> Batch:
    """Return this replica's part of the global batch, which is the same in every step and lies on the device already."""
    inputs, targets = built.draw(case.recipe.global_batch, torch.Generator().manual_seed(seed + 1))
    parts = 1 if case.plan.replication == FIRST_DEVICE else case.plan.dp
    share = case.recipe.global_batch // parts
    own = slice(ranks.at("dp") * share, (ranks.at("dp") + 1) * share) if parts > 1 else slice(None)
    return inputs[own].to(device), targets[own].to(device)


def _chunks(case: Case, module: nn.Module, ranks: Ranks) -> list[nn.Module]:
    """Return the parts of the module that this process holds."""
    if case.plan.pp == 1:
        return [module]
    assert isinstance(module, Layered)
    return [chunk(module, case.plan, part) for part in parts_here(case.plan, ranks.at("pp"))]


def _cut(module: nn.Module, case: Case, ranks: Ranks) -> None:
    """Cut a module by tensor, in place."""
    mesh = ranks.group("tp")
    if mesh is not None:
        assert isinstance(module, Layered)
        cut_by_tensor(module, mesh, case.net.kind, sequence_parallel=case.plan.sequence_parallel)


def _in_precision(module: nn.Module, case: Case, ranks: Ranks, device: str) -> nn.Module:
    """Return a module as its precision has it; FSDP has one of its own."""
    whole = case.recipe.precision not in HALVES or (case.plan.zero >= 2 and ranks.mesh is not None)
    return module if whole else InPrecision(module, case.recipe.precision, device)


def _loss(case: Case, loss: Loss, ranks: Ranks, device: str) -> Loss:
    mesh = ranks.group("tp")
    found: Loss = autocast(case.recipe.precision, device, loss if mesh is None else parallel_loss(loss, mesh))
    return found


def _accumulated(module: nn.Module, case: Case, batch: Batch, loss: Loss, scaler: Any) -> Pass:
    """Return forward and backward of all micro-batches, whose gradients add up to that of their mean."""
    count = case.microbatches
    pairs = list(zip(batch[0].chunk(count), batch[1].chunk(count), strict=True))
    within = accumulating(module, case.plan)

    def run() -> list[torch.Tensor]:
        losses = []
        for number, (inputs, targets) in enumerate(pairs):
            with within(number == count - 1):
                value = loss(module(inputs), targets)
                scaler.scale(value if count == 1 else value / count).backward()
            losses.append(value.detach())
        return losses

    return run


def _stepping(case: Case, ranks: Ranks, modules: Sequence[nn.Module], run: Pass, scaler: Any) -> Pass:
    """Return a whole step: gradients cleared, all micro-batches, the norm where it is clipped, the optimizer."""
    parameters = [one for module in modules for one in module.parameters()]
    optimizer = optimizer_of(case.recipe.optimizer, modules, ranks)
    stages = ranks.group("pp")

    def step() -> list[torch.Tensor]:
        optimizer.zero_grad()
        with loss_parallel() if case.plan.tp > 1 else contextlib.nullcontext():
            losses = run()
        if case.recipe.clip == "global":
            scaler.unscale_(optimizer)
            clip(parameters, None if stages is None else stages.get_group())
        scaler.step(optimizer)
        scaler.update()
        return losses

    return step
