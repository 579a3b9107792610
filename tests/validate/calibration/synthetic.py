"""Measurements of machines that are known: what a machine prices, as the records that measuring it would leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from foretrain.hardware.load import load_cluster
from foretrain.sim.collectives import collective, send
from foretrain.sim.cost import Pricer
from foretrain.sim.curve import lone_span
from foretrain.sim.recipe import Recipe
from foretrain.software.load import load_software
from foretrain.validate.calibration import kernels, power
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.case import Case, case_data, net_of, plan_of
from foretrain.validate.measuring.bench import SIZES
from foretrain.validate.measuring.stream_ops import OPS
from foretrain.validate.predict_case import predict
from foretrain.validate.records import Record

GPU = Machine(cluster=load_cluster("dgx-h100:1"), software=load_software("pytorch-loop"))
CPU = Machine(cluster=load_cluster("cpu-cores:1"), software=load_software("pytorch-cpu"))
DEVICE = {"cuda": "NVIDIA H100 80GB HBM3", "cpu": "some processor"}
PRODUCTS = (
    (1, 4096, 4096, 4096), (1, 8192, 8192, 1024), (1, 2048, 2048, 8192), (1, 1024, 1024, 1024), (1, 512, 4096, 512), (1, 4096, 4096, 256),
    (1, 8192, 1024, 4096), (1, 256, 8192, 2048), (16, 512, 512, 512), (1, 2048, 512, 128), (1, 640, 1920, 3072), (1, 3072, 768, 768),
)  # fmt: skip
ELEMENTS = tuple(2**power for power in range(14, 28, 2))
STREAMS = ("add", "relu", "layer_norm", "gelu")
ATTENDED = ((32, 512, 64), (64, 2048, 64), (16, 4096, 128), (96, 1024, 128))


def stamp(device: str) -> Record:
    """Return what is noted of a machine."""
    data = {"device": device, "device_name": DEVICE[device], "date": "2024-05-06T07:08:09+00:00", "versions": {"torch": "2.5.0"}}
    return Record(kind="stamp", key="stamp", data=data)


def spread(seconds: float) -> dict[str, Any]:
    """Return a spread without one."""
    return {"median": seconds, "q1": seconds, "q3": seconds, "repeats": 5}


def micro(bench: str, dtype: str, seconds: float, shape: dict[str, Any], **data: Any) -> Record:
    """Return a microbenchmark."""
    key = f"{bench}/{dtype}/" + ",".join(f"{name}={value}" for name, value in shape.items())
    return Record(kind="micro", key=key, data={"bench": bench, "dtype": dtype, "shape": shape, "seconds": spread(seconds), **data})


def kernel_records(machine: Machine, shapes: Sequence[tuple[str, str, dict[str, Any]]]) -> list[Record]:
    """Return microbenchmarks of kernels, each as long as the machine takes."""
    blank = [micro(bench, dtype, 1.0, shape, **_bytes(dtype, shape)) for bench, dtype, shape in shapes]
    times = kernels.priced_s(machine, kernels.points_of(blank))
    return [timed(record, float(seconds)) for record, seconds in zip(blank, times, strict=True)]


def timed(record: Record, seconds: float) -> Record:
    """Return a microbenchmark with other seconds."""
    return replace(record, data={**record.data, "seconds": spread(seconds)})


def _bytes(dtype: str, shape: dict[str, Any]) -> dict[str, float]:
    return {"bytes": OPS[shape["op"]].passes * shape["elements"] * SIZES[dtype]} if "op" in shape else {}


def products(dtype: str, shapes: Sequence[tuple[int, ...]] = PRODUCTS) -> list[tuple[str, str, dict[str, Any]]]:
    """Return matrix products to measure."""
    return [("matmul", dtype, {**dict(zip("bmnk", shape, strict=True)), "batch": shape[0]}) for shape in shapes]


def streams(dtype: str, ops: Sequence[str] = STREAMS) -> list[tuple[str, str, dict[str, Any]]]:
    """Return memory-bound kernels to measure."""
    return [("stream", dtype, {"op": op, "elements": size, "launches": 1}) for op in ops for size in ELEMENTS]


def attentions(dtype: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return fused attention to measure."""
    return [
        ("attention", dtype, {"heads": heads, "queries": length, "keys": length, "head_dim": width, "causal": causal, "backward": backward})
        for heads, length, width in ATTENDED
        for causal in (True, False)
        for backward in (True, False)
    ]


def convolutions(dtype: str, directions: Sequence[str], sizes: Sequence[int] = (14, 28, 56)) -> list[tuple[str, str, dict[str, Any]]]:
    """Return convolutions to measure."""
    return [
        (
            "convolution", dtype,
            {
                "direction": direction, "samples": 64, "in_channels": channels, "out_channels": channels, "groups": 1,
                "in_size": [size, size], "out_size": [size, size], "kernel": [3, 3], "stride": [1, 1],
            },
        )
        for direction in directions for size in sizes for channels in (64, 128, 256)
    ]  # fmt: skip


def launch_records(machine: Machine) -> list[Record]:
    """Return what the host and the least kernel take."""
    host, floor_s = machine.software.host, machine.accelerator.kernel_floor_s
    times = {"grad": host.launch_s, "backward": host.launch_s, "graph": floor_s, "gap": floor_s + host.launch_gap_s}
    return [micro("launch", "fp32", seconds, {"what": what, "chain": 64}) for what, seconds in times.items()]


def message_records(machine: Machine, ranks: Sequence[int], kinds: Sequence[str] = ("all_reduce", "all_gather")) -> list[Record]:
    """Return collectives and sends, each as long as the machine's fabric takes."""
    sizes = [float(4**power) for power in range(6, 14)]
    found = [
        micro("collective", "fp32", collective(kind, size, lone_span(machine.cluster, count), machine.cluster).total_s,
              {"op": kind, "bytes": size, "ranks": count, "backend": "gloo"})
        for kind in kinds for count in ranks for size in sizes
    ]  # fmt: skip
    sends = [(size, send(size, machine.cluster, crosses=False, flows=1).total_s) for size in sizes]
    return found + [micro("send", "fp32", seconds, {"bytes": size, "backend": "gloo"}) for size, seconds in sends]


def power_records(machine: Machine) -> list[Record]:
    """Return the power at rest and of steady loads, as a machine draws it."""
    rest = machine.accelerator.power.idle_w
    shapes = [
        ("bf16", {"what": "matmul", "sizes": [8192, 8192, 8192]}), ("bf16", {"what": "matmul small", "sizes": [1024, 1024, 1024]}),
        ("fp32", {"what": "memory", "sizes": [2**27]}), ("bf16", {"what": "attention", "sizes": [64, 4096, 128]}),
        ("bf16", {"what": "matmul thin", "sizes": [8192, 8192, 512]}),
    ]  # fmt: skip
    blank = [micro("power", dtype, 1.0, shape, watts=1.0) for dtype, shape in shapes]
    found = [micro("power", "fp32", 0.05, {"what": "idle"}, watts=rest)]
    for record, load in zip(blank, power.loads_of(blank), strict=True):
        seconds = Pricer(machine.accelerator, machine.software, load.dtype).work(load.kernel).device_s
        watts = float(np.exp(power.errors_of(machine, [replace(load, seconds=seconds)])[0]))
        found.append(replace(record, data={**record.data, "seconds": spread(seconds), "watts": watts}))
    return found


def case(net: str, plan: str = "dp=1", *, batch: int = 32, precision: str = "fp32") -> Case:
    """Return a step to run."""
    recipe = Recipe(global_batch=batch, precision=precision, optimizer="sgd")
    layout = plan_of(plan)
    made = replace(layout, micro_batch=batch // (layout.dp * layout.pp))
    return Case(name=f"{net}/{plan}/{batch}/{precision}", net=net_of(net), plan=made, recipe=recipe)


def step_record(machine: Machine, one: Case, factor: float = 1.0) -> Record:
    """Return a step that took as long as a machine predicts, times a factor."""
    seconds = predict(one, machine.cluster, machine.software).step_s * factor
    ranks = one.plan.ranks
    data = {"case": case_data(one), "device": "cpu", "device_name": "", "world_size": ranks, "step_s": spread(seconds), "losses": [1.0]}
    return Record(kind="step", key=one.name, data=data)
