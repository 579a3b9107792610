"""Measured kernels beside what a machine's curves say of them, and the knobs of those curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from foretrain.models.ops import Kernel
from foretrain.models.stream import stream_kernel
from foretrain.sim.corrections import attention_kernel, attention_row, convolution_kernel, convolution_row, product_kernel
from foretrain.sim.cost import Pricer
from foretrain.sim.cost import attention_kernel as attention_called
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.calibration.robust import Knob, Vector
from foretrain.validate.measuring.bench import SIZES
from foretrain.validate.measuring.stream_ops import OPS
from foretrain.validate.records import Record

STREAM_CLASSES: Mapping[str, str] = MappingProxyType({
    "gelu": "activation", "silu": "activation", "tanh": "activation", "gelu_backward": "activation_backward", "layer_norm": "norm",
    "layer_norm_backward": "norm_backward", "batch_norm": "batch_norm", "batch_norm_backward": "batch_norm_backward",
    "softmax": "softmax", "softmax_backward": "softmax_backward", "sum": "reduce", "avg_pool": "mean", "max_pool": "pool",
    "max_pool_backward": "pool_backward", "embedding": "gather", "embedding_backward": "scatter", "copy": "copy", "cast": "cast",
    "cross_entropy": "log_softmax", "cross_entropy_backward": "log_softmax_backward", "batch_norm_wide": "batch_norm_wide",
    "batch_norm_wide_backward": "batch_norm_backward_wide",
})  # fmt: skip
"""Classes of the ops that are measured, as a trace names them; the others are elementwise."""
CAST_BYTES = 6.0
"""Read and written of an element that goes from 32 bits to 16, or back."""
PLAIN = ("add", "mul", "relu", "relu_backward")
"""Elementwise ops, of which the curve of memory-bound kernels is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured kernel: what it is, in which dtype, and the seconds that one launch took."""

    bench: str
    what: str
    """The direction, or the op."""
    dtype: str
    kernel: Kernel
    row: tuple[float, ...]
    """Its shape as in a profile's table."""
    seconds: float
    key: str


def points_of(records: Sequence[Record]) -> list[Point]:
    """Return the kernels among the microbenchmarks that were measured with one rank at work; skipped ones are left out."""
    found = [_point(record) for record in records if record.kind == "micro" and "seconds" in record.data and "skipped" not in record.data]
    return [point for point in found if point is not None and point.seconds > 0.0]


def _point(record: Record) -> Point | None:
    data, shape = record.data, record.data["shape"]
    if shape.get("busy_ranks", 1) > 1:
        return None
    bench, dtype, seconds = data["bench"], data["dtype"], data["seconds"]["median"]
    if bench == "matmul":
        row = tuple(float(shape[name]) for name in ("batch", "m", "n", "k"))
        return _made(record, "", row, product_kernel(row, dtype), seconds)
    if bench == "convolution":
        row = convolution_row(shape)
        return _made(record, shape["direction"], row, convolution_kernel(row, dtype, shape["direction"]), seconds)
    if bench == "attention" and shape["queries"] == shape["keys"]:
        what = "backward" if shape["backward"] else "forward"
        row = attention_row(shape["heads"], shape["queries"], shape["keys"], shape["head_dim"], causal=shape["causal"])
        return _made(record, what, row, attention_kernel(row, dtype, what), seconds)
    if bench == "stream":
        name = STREAM_CLASSES.get(shape["op"], "")
        moved = CAST_BYTES * shape["elements"] if shape["op"] == "cast" else _passes(shape["op"]) * shape["elements"] * SIZES[dtype]
        kernel = stream_kernel(shape["op"], moved, shape["launches"], ((name, 1.0),) if name else ())
        return _made(record, shape["op"], (moved / shape["launches"],), kernel, seconds)
    return None


def _passes(op: str) -> float:
    """Return how often an op goes over its elements, as a trace counts it: what it reads and writes at least."""
    return OPS[op].passes if op in OPS else 2.0


def _made(record: Record, what: str, row: tuple[float, ...], kernel: Kernel, seconds: float) -> Point:
    data = record.data
    return Point(bench=data["bench"], what=what, dtype=data["dtype"], kernel=kernel, row=row, seconds=seconds, key=record.key)


def priced_s(machine: Machine, points: Sequence[Point]) -> Vector:
    """Return what a machine takes for each kernel, back to back: the device's time, which a host that is its own device adds to.

    Kernels of other devices are measured from a full queue, so that they never wait for their host.
    """
    host = machine.software.host
    pricers = {dtype: Pricer(machine.accelerator, machine.software, dtype) for dtype in {point.dtype for point in points}}
    found = []
    for point in points:
        work = pricers[point.dtype].work(point.kernel)
        found.append(work.device_s + work.host_s if host.blocking else work.device_s)
    return np.array(found)


def errors_of(machine: Machine, points: Sequence[Point]) -> Vector:
    """Return log(priced / measured) of kernels."""
    return np.asarray(np.log(priced_s(machine, points)) - np.log([point.seconds for point in points]))


def knobs_of(machine: Machine, points: Sequence[Point]) -> dict[str, list[Knob]]:
    """Return the knobs that each kind of kernel tells about, by bench, in the order in which they are fitted."""
    dtypes = sorted({point.dtype for point in points if point.bench == "matmul"})
    called = attention_called(machine.software, machine.accelerator)
    units = ("matrix", "vector") if machine.has("accelerator.convolution.matrix.forward") else ("vector",)
    return {
        "stream": [
            Knob(path="accelerator.memory.efficiency", low=0.05, high=1.0, width=0.3),
            Knob(path="accelerator.memory.half_bytes", low=1e2, high=1e9, width=1.5),
        ],
        "matmul": [
            *(Knob(path=f"accelerator.matmul.sustained.{dtype}", low=0.02, high=1.15, width=0.4) for dtype in dtypes),
            Knob(path="accelerator.matmul.depth_fill", low=1.0, high=3000.0, width=1.0),
            Knob(path="accelerator.matmul.wave_smoothing", low=0.01, high=1.0, width=1.0),
        ],
        "convolution": [
            Knob(path=f"accelerator.convolution.{unit}.{name}", low=0.02, high=1.2, width=0.5)
            for unit in units
            for name in ("forward", "data", "weight", "strided_data")
        ] + [
            *(Knob(path=f"accelerator.convolution.{unit}.depth_fill", low=1.0, high=3000.0, width=1.0) for unit in units),
            Knob(path="accelerator.convolution.few_channels", low=0.02, high=1.2, width=0.5),
            Knob(path="accelerator.convolution.direct", low=0.002, high=1.2, width=1.0),
        ],
        "attention": [
            *(Knob(path=f"accelerator.attention.{called}.{name}", low=0.02, high=1.0, width=0.4) for name in ("forward", "backward")),
            Knob(path=f"accelerator.attention.{called}.half_length", low=8.0, high=1e5, width=1.0),
            Knob(path=f"accelerator.attention.{called}.narrow_head", low=0.1, high=1.0, width=0.4),
        ],
    }  # fmt: skip


def worst(machine: Machine, points: Sequence[Point], count: int = 5) -> list[tuple[str, float]]:
    """Return the kernels that are priced worst, with their relative errors."""
    errors = errors_of(machine, points)
    order = np.argsort(-np.abs(errors))[:count]
    return [(points[index].key, math.expm1(float(errors[index]))) for index in order]
