"""The networks of cases, ready to be trained or traced: trainer and predictor build them with the same call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from foretrain.errors import UsageError, nearest
from foretrain.models.trace_factory import DTYPES, whole_module
from foretrain.validate.case import Net
from foretrain.validate.training.gpt import gpt
from foretrain.validate.training.mlp import mlp
from foretrain.validate.training.resnet import resnet
from foretrain.validate.training.sizes import check_net

Draw = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]
Loss = Callable[[Any, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A network: its module; `draw(samples, generator)`, which gives inputs and targets on the CPU; and its loss.

    `loss(outputs, targets)` is the mean over the samples. Without targets it takes class 0 for all, so that
    `foretrain.from_module(built.module, built.draw(2, generator)[0], loss=built.loss)` traces it for any number of samples.
    """

    module: nn.Module
    draw: Draw
    loss: Loss


def build(net: Net, *, seed: int = 0, device: str = "cpu") -> Built:
    """Return a network with weights drawn from the seed, on a device: the same ones whenever the device is of the same kind.

    Raises:
        UsageError: for sizes that no such network has, and for a factory that does not build.
    """
    check_net(net)
    if net.sample_dtype not in DTYPES:
        raise UsageError(f"sample dtype {net.sample_dtype!r} is unknown; use one of {', '.join(DTYPES)}{nearest(net.sample_dtype, DTYPES)}")
    torch.manual_seed(seed)
    sizes = dict(net.sizes)
    with torch.device(device):
        if net.kind == "module":
            return Built(module=whole_module(net.factory).to(device), draw=partial(_samples, net), loss=_own)
        if net.kind == "gpt":
            return Built(module=gpt(**sizes), draw=partial(_tokens, sizes["seq"], sizes["vocab"]), loss=_classes)
        if net.kind == "mlp":
            return Built(module=mlp(**sizes), draw=partial(_labelled, (sizes["width"],), sizes["classes"]), loss=_classes)
        image = sizes.pop("image")
        return Built(module=resnet(**sizes), draw=partial(_labelled, (3, image, image), sizes["classes"]), loss=_classes)


def _tokens(seq: int, vocab: int, samples: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.randint(vocab, (samples, seq + 1), generator=generator)
    return numbers[:, :-1].contiguous(), numbers[:, 1:].contiguous()


def _labelled(shape: tuple[int, ...], classes: int, samples: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(samples, *shape, generator=generator), torch.randint(classes, (samples,), generator=generator)


def _samples(net: Net, samples: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    shape, dtype = (samples, *net.sample_shape), getattr(torch, net.sample_dtype)
    # 0 and 1 are numbers that every table of embeddings holds.
    drawn = torch.randn(shape, generator=generator) if dtype.is_floating_point else torch.randint(2, shape, generator=generator)
    return drawn.to(dtype), torch.zeros(samples, dtype=torch.int64)


def _classes(outputs: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    if targets is None:
        targets = torch.zeros(outputs.shape[:-1], dtype=torch.int64, device=outputs.device)
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def _own(outputs: Any, targets: torch.Tensor | None = None) -> torch.Tensor:  # what a user's module returns has none
    """Return the loss that a user's module returns, else the mean square of what it does."""
    own = outputs.get("loss") if isinstance(outputs, dict) else getattr(outputs, "loss", None)
    if isinstance(own, torch.Tensor):
        return own
    values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    found = [one.float().square().mean() for one in values if isinstance(one, torch.Tensor) and one.is_floating_point()]
    if not found:
        raise UsageError(f"the module returns {type(outputs).__name__} without a tensor to differentiate; return its output or a loss")
    return torch.stack(found).sum()
