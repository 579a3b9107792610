"""The roofline of an accelerator, and where the kernels of a model lie under it.

A kernel of F FLOPs that moves B bytes has intensity F / B. No kernel runs faster than min(peak, intensity · bandwidth); the cost
model says how far below that one stays.

**Source:** Williams, Waterman, Patterson, Roofline, CACM 52 (2009), doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foretrain.hardware.accelerator import Accelerator
from foretrain.models.model import Model
from foretrain.models.ops import Kernel, Layout
from foretrain.sim.cost import Pricer
from foretrain.sim.low_precision import model_in_few_bits
from foretrain.sim.plan import Plan
from foretrain.sim.precision import numbers
from foretrain.sim.recipe import Recipe
from foretrain.software.profile import Software


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """One precision of an accelerator: FLOP/s of the data sheet, and what large products hold of it."""

    precision: str
    peak_flop_per_s: float
    sustained_flop_per_s: float
    ridge_flop_per_byte: float
    """Intensity at which the data sheet's math and memory take the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflinePoint:
    """A kernel of one micro-batch on one rank: how often it runs, and what one run does and takes."""

    name: str
    direction: str
    kind: str
    count: int
    flop: float
    moved_bytes: float
    seconds: float

    @property
    def intensity(self) -> float:
        """FLOPs for each byte moved."""
        return self.flop / self.moved_bytes if self.moved_bytes else 0.0

    @property
    def flop_per_s(self) -> float:
        """Rate on the device."""
        return self.flop / self.seconds if self.seconds else 0.0

    @property
    def total_s(self) -> float:
        """Time of all its runs in one micro-batch."""
        return self.count * self.seconds


def roofs(accelerator: Accelerator) -> tuple[Roof, ...]:
    """Return the roofs of an accelerator, highest first."""
    found = [_roof(accelerator, precision, peak) for precision, peak in accelerator.peak_flop_per_s.items()]
    return tuple(sorted(found, key=lambda roof: -roof.peak_flop_per_s))


def roofline_points(
    model: Model, accelerator: Accelerator, software: Software, *, precision: str = "bf16", micro_batch: int = 1
) -> tuple[RooflinePoint, ...]:
    """Return the kernels of one micro-batch of the whole model, forward and backward; alike ones are one point with a count.

    Raises:
        RecipeError: where the accelerator has no rate for the precision.
    """
    dtype = numbers(Recipe(global_batch=micro_batch, precision=precision), accelerator, software, sharded=False)
    pricer = Pricer(accelerator, software, dtype.dtype)
    model = model_in_few_bits(model, precision, accelerator, software, Plan())
    layout = Layout(
        micro_batch=micro_batch, element_bytes=dtype.element_bytes, flash=pricer.attention != "unfused", fused=software.fused
    )
    found: dict[tuple[str, str, float, float], RooflinePoint] = {}
    for direction, kernel, copies in _kernels(model, layout):
        key = (kernel.name, direction, kernel.flop, kernel.moved_bytes)
        count = copies + (found[key].count if key in found else 0)
        found[key] = RooflinePoint(
            name=kernel.name, direction=direction, kind=kernel.kind.name.lower(), count=count, flop=kernel.flop,
            moved_bytes=kernel.moved_bytes, seconds=pricer.work(kernel).device_s,
        )  # fmt: skip
    return tuple(found.values())


def _kernels(model: Model, layout: Layout) -> Iterator[tuple[str, Kernel, int]]:
    for block, copies in model.blocks():
        for op in block.ops:
            yield from (("forward", kernel, copies) for kernel in op.forward(layout))
            yield from (("backward", kernel, copies) for kernel in op.backward(layout))


def _roof(accelerator: Accelerator, precision: str, peak: float) -> Roof:
    sustained = accelerator.matmul.sustained.get(precision, min(accelerator.matmul.sustained.values()))
    return Roof(
        precision=precision, peak_flop_per_s=peak, sustained_flop_per_s=peak * sustained,
        ridge_flop_per_byte=peak / accelerator.memory_bytes_per_s,
    )  # fmt: skip
