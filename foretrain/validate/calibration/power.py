"""Measured power, of steady loads and of whole steps, beside what a machine's energies say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretrain.errors import ForetrainError
from foretrain.models.ops import Kernel
from foretrain.models.stream import stream_kernel
from foretrain.sim.corrections import attention_kernel, attention_row, product_kernel
from foretrain.sim.cost import Pricer
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.calibration.robust import Knob, Vector
from foretrain.validate.calibration.steps import Step
from foretrain.validate.records import Record

THROTTLED = 0.97
"""Share of its limit from which a load is held there, so that what it would draw without is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One steady load: the kernel that ran over and over, its seconds, and the watts that were drawn."""

    kernel: Kernel
    dtype: str
    seconds: float
    watts: float
    key: str


def idle_w(records: Sequence[Record]) -> float | None:
    """Return the power at rest; None where nothing counted it."""
    found = [record.data["watts"] for record in _powers(records) if record.data["shape"]["what"] == "idle"]
    return min(found) if found else None


def loads_of(records: Sequence[Record]) -> list[Load]:
    """Return the steady loads among the microbenchmarks."""
    found = []
    for record in _powers(records):
        data = record.data
        kernel = _kernel(data["shape"]["what"], data["shape"].get("sizes", ()), data["dtype"])
        if kernel is not None:
            found.append(
                Load(kernel=kernel, dtype=data["dtype"], seconds=data["seconds"]["median"], watts=data["watts"], key=record.key)
            )
    return found


def _kernel(what: str, sizes: Sequence[int], dtype: str) -> Kernel | None:
    if what.startswith("matmul"):
        m, n, k = sizes
        return product_kernel((1.0, float(m), float(n), float(k)), dtype)
    if what == "memory":
        return stream_kernel("copy", 8.0 * sizes[0], 1, (("copy", 1.0),))
    if what == "attention":
        heads, tokens, width = sizes
        return attention_kernel(attention_row(heads, tokens, tokens, width, causal=True), dtype, "forward")
    return None


def errors_of(machine: Machine, loads: Sequence[Load]) -> Vector:
    """Return log(priced / measured) of the power of loads, at the pace at which they ran."""
    power, found = machine.accelerator.power, []
    for load in loads:
        work = Pricer(machine.accelerator, machine.software, load.dtype).work(load.kernel)
        # What is charged per second of a kernel holds for the seconds that it really took.
        busy_j = work.busy_j * load.seconds / work.device_s
        # Operands that fit the cache are still there when the same call comes again.
        memory_j = work.memory_j if load.kernel.moved_bytes > machine.accelerator.cache_bytes else 0.0
        watts = power.idle_w + (work.math_j + memory_j + busy_j) / load.seconds
        # A limit that the load did not reach is no excuse for a prediction that does.
        most_w = power.limit_w if load.watts >= THROTTLED * power.limit_w else float("inf")
        found.append(np.log(min(watts, most_w) / load.watts))
    return np.array(found)


def step_errors_of(machine: Machine, steps: Sequence[Step]) -> Vector:
    """Return log(predicted / measured) of the joules of steps, at rest for as long as they took; NaN where one cannot be predicted."""
    return np.array([_step_error(machine, step) for step in steps])


def _step_error(machine: Machine, step: Step) -> float:
    try:
        found = step.predict(machine)
    except ForetrainError:
        return float("nan")
    assert step.joules is not None
    dynamic_w = found.power["accelerator_mean_w"] - machine.accelerator.power.idle_w
    joules = found.accelerators * (dynamic_w * found.step_s + machine.accelerator.power.idle_w * step.seconds)
    return float(np.log(joules / step.joules))


def knobs_of(machine: Machine) -> list[Knob]:
    """Return the energies that loads and steps tell about."""
    dtypes = sorted(machine.accelerator.power.math_j_per_flop)
    return [
        *(Knob(path=f"accelerator.power.math_j_per_flop.{dtype}", low=1e-14, high=1e-10, width=0.4) for dtype in dtypes),
        Knob(path="accelerator.power.memory_j_per_byte", low=1e-12, high=1e-9, width=0.4),
        Knob(path="accelerator.power.busy_w", low=0.1, high=0.6 * machine.accelerator.power.limit_w, width=0.7),
    ]


def _powers(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.kind == "micro" and record.data.get("bench") == "power" and "watts" in record.data]
