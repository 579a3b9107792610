"""Traces written by hand, in microseconds, and what is needed to predict something beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Event = dict[str, Any]
NCCL = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
GEMM = "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT"
GELU = "void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl(at::TensorIteratorBase&)::{lambda()#1}>"


def kernel(name: str, ts: float, dur: float, number: int | None = None, stream: int = 7, **args: Any) -> Event:
    """Return what a device ran; `number` is that of its launch."""
    correlation = {} if number is None else {"correlation": number}
    return {"ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": stream, "ts": ts, "dur": dur, "args": {**correlation, **args}}


def launch(ts: float, number: int, thread: int = 1) -> Event:
    """Return the call that launched a kernel."""
    return {
        "ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 9, "tid": thread, "ts": ts, "dur": 1,
        "args": {"correlation": number},
    }  # fmt: skip


def op(name: str, ts: float, dur: float, thread: int = 1) -> Event:
    """Return an op of the host."""
    return {"ph": "X", "cat": "cpu_op", "name": name, "pid": 9, "tid": thread, "ts": ts, "dur": dur}


def mark(name: str, ts: float, dur: float, thread: int = 1) -> Event:
    """Return an annotation of the host, such as ProfilerStep#3."""
    return {"ph": "X", "cat": "user_annotation", "name": name, "pid": 9, "tid": thread, "ts": ts, "dur": dur}


def written(folder: Path, *events: Event, shift: float = 0.0, **head: Any) -> Path:
    """Return the file of a trace, all of its events `shift` microseconds later."""
    path = folder / "trace.json"
    moved = [{**event, "ts": event["ts"] + shift} for event in events]
    path.write_text(json.dumps({"schemaVersion": 1, **head, "traceEvents": moved}))
    return path


def device_step() -> tuple[Event, ...]:
    """Return one step of a device, 100 µs of the host before its first kernel, whose parts are known.

    A product of 30 µs, a gap of 10 in which the host had not yet asked for what comes, gelu of 20, a gap of 5 after what comes was asked
    for, a product of 40 with an all-reduce of 60 beside it from its middle, and 15 of the optimizer after that: 160 µs from first to last.
    """
    return (
        op("aten::addmm", 90, 8), launch(92, 1), kernel(GEMM, 100, 30, 1),
        op("aten::gelu", 135, 4), launch(136, 2), kernel(GELU, 140, 20, 2),
        op("autograd::engine::evaluate_function: AddmmBackward0", 144, 6, 2), op("aten::mm", 145, 4, 2), launch(146, 3, 2),
        kernel(GEMM, 165, 40, 3),
        launch(151, 4, 2),
        kernel(NCCL, 185, 60, 4, stream=20, **{
            "Collective name": "allreduce", "In msg nelems": 1000, "Out msg nelems": 1000, "dtype": "Float", "Group size": 8,
        }),
        mark("Optimizer.step#AdamW.step", 152, 9), op("aten::_fused_adamw_", 153, 5), launch(154, 5),
        kernel("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<...>", 245, 15, 5),
    )  # fmt: skip
