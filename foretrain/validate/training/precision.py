"""Precisions as torch runs them: tf32 by a switch, 16 bits by autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_matmul(precision: str) -> None:
    """Let matrices and convolutions of fp32 run in tf32 on GPUs, or not."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def autocast(precision: str, device: str, function: Any) -> Any:
    """Return a function as it runs in a precision."""
    if precision not in HALVES:
        return function
    return torch.autocast(device, dtype=HALVES[precision])(function)


def autocast_module(precision: str, device: str, module: nn.Module) -> None:
    """Have the forward pass of a module run in a precision; its backward follows, as torch asks for, outside of the context."""
    if precision in HALVES:
        module.forward = autocast(precision, device, module.forward)
