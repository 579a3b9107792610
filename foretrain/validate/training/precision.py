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


class InPrecision(nn.Module):
    """A module whose forward pass runs in a precision; its backward follows outside of the context, as torch asks for."""

    def __init__(self, module: nn.Module, precision: str, device: str) -> None:
        super().__init__()
        self.module = module
        self.device, self.dtype = device, HALVES[precision]

    def forward(self, *rows: Any) -> Any:
        """Return what the module makes of the rows."""
        with torch.autocast(self.device, dtype=self.dtype):
            return self.module(*rows)
