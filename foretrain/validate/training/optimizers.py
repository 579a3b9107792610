"""Optimizers by name, with torch's own defaults of how they run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor

from foretrain.validate.training.ranks import Ranks

RATE, ADAPTIVE_RATE = 1e-2, 1e-4
"""Small enough that a few steps on one batch do not diverge."""
LARGEST_NORM = 1.0
KINDS: Mapping[str, tuple[type[torch.optim.Optimizer], Mapping[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": RATE}),
    "momentum": (torch.optim.SGD, {"lr": RATE, "momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"lr": RATE, "momentum": 0.9, "nesterov": True}),
    "adagrad": (torch.optim.Adagrad, {"lr": ADAPTIVE_RATE}),
    "adam": (torch.optim.Adam, {"lr": ADAPTIVE_RATE}),
    "adamw": (torch.optim.AdamW, {"lr": ADAPTIVE_RATE}),
}


def optimizer_of(name: str, modules: Iterable[nn.Module], ranks: Ranks) -> torch.optim.Optimizer:
    """Return the optimizer of what this process holds; with zero=1 its state is shared out over the replicas."""
    parameters = [one for module in modules for one in module.parameters()]
    kind, settings = KINDS[name]
    group = ranks.group("dp")
    if ranks.plan.zero == 1 and group is not None:
        return ZeroRedundancyOptimizer(parameters, kind, process_group=group.get_group(), **settings)
    return kind([{"params": alike} for alike in alikes(parameters)], **settings)


def alikes(parameters: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Return tensors with those together that one call may take: plain ones, and those of a mesh."""
    found: dict[Any, list[torch.Tensor]] = {}
    for one in parameters:
        found.setdefault(one.device_mesh if isinstance(one, DTensor) else None, []).append(one)
    return list(found.values())


def clip(parameters: Iterable[torch.Tensor], group: Any = None) -> None:
    """Scale gradients down to a norm over all of the model, whose stages may lie in a group of processes."""
    found = alikes(one for one in parameters if one.grad is not None)
    norms = [torch.nn.utils.get_total_norm([one.grad for one in alike if one.grad is not None]) for alike in found]
    total = torch.linalg.vector_norm(torch.stack([one.full_tensor() if isinstance(one, DTensor) else one for one in norms]))
    if group is not None:
        total = total.square()
        torch.distributed.all_reduce(total, group=group)
        total = total.sqrt()
    for alike in found:
        torch.nn.utils.clip_grads_with_norm_(alike, LARGEST_NORM, total)
