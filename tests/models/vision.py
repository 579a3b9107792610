"""torchvision and timm as oracles, imported without the compiled operators that no test needs."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import pytest


@functools.cache
def library(name: str) -> Any:
    """Return torchvision's models, or timm, or skip where it is missing.

    Wheels of torchvision that do not match torch's lack their operators, for two of which it registers shapes on import: these are
    declared before.
    """
    torch = pytest.importorskip("torch")
    for operator in ("nms", "qnms"):
        try:
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            break
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is not installed: {error}")


def passes_flop(net: Any, run: Any) -> tuple[int, int]:
    """Return the FLOPs of a forward pass, `run(net)`, and of its backward pass, as torch counts them on tensors without memory."""
    counters = importlib.import_module("torch.utils.flop_counter")
    with counters.FlopCounterMode(display=False) as forward:
        result = run(net)
    with counters.FlopCounterMode(display=False) as backward:
        result.backward()
    return forward.get_total_flops(), backward.get_total_flops()
