"""Optimizer updates over number and size of tensors, as torch's foreach and fused loops run them, and the clearing of gradients."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from foretrain.validate.measuring.bench import Bench, Lab, Machine, merged

PASSES = {"sgd": 3, "momentum": 5, "adam": 7, "adamw": 7, "adamw_fused": 7, "zero_grad": 0}
"""Reads and writes of all elements that an update must make; clearing drops the gradients and makes none."""
MOST_ELEMENTS = {"cpu": 2**23, "cuda": 2**27}


def plan(machine: Machine) -> list[Bench]:
    """Return every optimizer at a usual size first, then over sizes and numbers."""
    most = MOST_ELEMENTS[machine.device]
    names = [name for name in PASSES if machine.device == "cuda" or name != "adamw_fused"]
    sizes = ((most // 4, 64), (most // 64, 64), (most // 64, 1), (most, 16), (2**14, 256), (most, 4))
    spread = [_bench(name, elements, tensors, machine) for elements, tensors in sizes for name in names]
    return merged(spread)


def _bench(name: str, elements: int, tensors: int, machine: Machine) -> Bench:
    shape = {"name": name, "elements": elements, "tensors": tensors, **({"busy_ranks": 1} if machine.device == "cpu" else {})}
    return Bench(name="optimizer", dtype="fp32", shape=shape, bytes=4.0 * PASSES[name] * elements, held_bytes=24.0 * elements)


def measure(bench: Bench, lab: Lab) -> dict[str, Any]:
    """Time one update, or one clearing, which costs the host alone."""
    import torch  # noqa: PLC0415 - torch is heavy and optional

    name, tensors = bench.shape["name"], bench.shape["tensors"]
    weights = [torch.nn.Parameter(lab.tensor(bench.shape["elements"] // tensors)) for _ in range(tensors)]
    slopes = [torch.full_like(one, 1e-3) for one in weights]
    optimizer = _made(name, weights)
    _give(weights, slopes)
    if name != "zero_grad":
        return lab.time(optimizer.step).data()

    def clear() -> None:
        _give(weights, slopes)
        optimizer.zero_grad(set_to_none=True)

    timing = lab.time(clear)
    return {"seconds": asdict(timing.wall_s), "cpu_s": asdict(timing.cpu_s)}


def _give(weights: list[Any], slopes: list[Any]) -> None:
    for weight, slope in zip(weights, slopes, strict=True):
        weight.grad = slope


def _made(name: str, weights: list[Any]) -> Any:
    from torch import optim  # noqa: PLC0415

    if name in {"sgd", "zero_grad"}:
        return optim.SGD(weights, lr=1e-6, foreach=None)
    if name == "momentum":
        return optim.SGD(weights, lr=1e-6, momentum=0.9, foreach=None)
    if name == "adam":
        return optim.Adam(weights, lr=1e-6, foreach=None)
    return optim.AdamW(weights, lr=1e-6, fused=True) if name == "adamw_fused" else optim.AdamW(weights, lr=1e-6, foreach=None)
