"""Hardware and software whose every number can be worked out on paper: 1 TFLOP/s, 1 TB/s, no latency, no launch cost, no loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from foretrain.hardware.accelerator import Accelerator, AcceleratorPower, AttentionCurve, MatmulCurve, MemoryCurve
from foretrain.hardware.cluster import Cluster, Facility
from foretrain.hardware.fabric import Fabric
from foretrain.hardware.node import Node
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model
from foretrain.sim.schedules.gpipe import GPipe
from foretrain.sim.schedules.interleaved import InterleavedOneForwardOneBackward
from foretrain.sim.schedules.one_f_one_b import OneForwardOneBackward
from foretrain.software.profile import HostCost, Overlap, Software, TrainingState

TERA = 1e12
GIGA = 1e9
INTERLEAVED = InterleavedOneForwardOneBackward()
ONE_F_ONE_B = OneForwardOneBackward()
GPIPE = GPipe()

POWER = AcceleratorPower(
    idle_w=100.0, limit_w=1000.0, math_j_per_flop={"bf16": 1e-10, "fp32": 4e-10}, memory_j_per_byte=1e-10, link_j_per_byte=1e-10,
    busy_w=50.0,
)  # fmt: skip
NO_POWER = AcceleratorPower(idle_w=0.0, limit_w=1.0, math_j_per_flop={}, memory_j_per_byte=0.0, link_j_per_byte=0.0, busy_w=0.0)


def accelerator(**changes: Any) -> Accelerator:
    """Return a device of 1 TFLOP/s and 1 TB/s that reaches both at any size."""
    values: dict[str, Any] = {
        "name": "hand device", "key": "hand", "peak_flop_per_s": {"bf16": TERA, "fp32": TERA}, "memory_bytes": 80 * GIGA,
        "memory_bytes_per_s": TERA, "cache_bytes": 0.0, "compute_units": 1,
        "matmul": MatmulCurve(sustained={"bf16": 1.0}, tiles=((1, 1),), tile_efficiency=(1.0,), depth_fill=0.0, wave_smoothing=1.0),
        "memory": MemoryCurve(efficiency=1.0, half_bytes=0.0),
        "attention": {"flash2": AttentionCurve(forward=1.0, backward=1.0, half_length=0.0, narrow_head=1.0)},
        "kernel_floor_s": 0.0, "overlap_loss": 0.0, "spread": 0.0, "host_bytes_per_s": TERA, "power": POWER,
    }  # fmt: skip
    return Accelerator(**{**values, **changes})


def fabric(**changes: Any) -> Fabric:
    """Return a switch of 100 GB/s per direction without latency."""
    values: dict[str, Any] = {
        "name": "hand fabric", "topology": "switch", "domain": 8, "bandwidth_bytes_per_s": 100 * GIGA, "efficiency": 1.0,
        "point_to_point_efficiency": 1.0, "base_latency_s": 0.0, "step_latency_s": 0.0, "half_bytes_per_rank": 0.0,
    }  # fmt: skip
    return Fabric(**{**values, **changes})


def cluster(
    *, nodes: int = 1, device: Accelerator | None = None, up: Fabric | None = None, out: Fabric | None = None, **node_changes: Any
) -> Cluster:
    """Return nodes of 8 devices, 100 GB/s ports inside and a NIC of 10 GB/s per device."""
    values: dict[str, Any] = {
        "name": "hand node", "accelerator": device or accelerator(), "accelerators": 8, "scale_up": up or fabric(), "nics": 8,
        "nic_bytes_per_s": 10 * GIGA, "host_w": 800.0, "usd_per_hour": 36.0,
    }  # fmt: skip
    node = Node(**{**values, **node_changes})
    network = out or fabric(name="hand network", topology="fat-tree", domain=10**9, bandwidth_bytes_per_s=node.network_bytes_per_s)
    facility = Facility(pue=1.25, usd_per_kwh=0.1, co2_g_per_kwh=400.0, network_w_per_accelerator=25.0)
    return Cluster(name="hand cluster", node=node, nodes=nodes, scale_out=network, facility=facility)


NO_HOST = HostCost(launch_s=0.0, launch_gap_s=0.0, collective_s=0.0, blocking=False, step_s=0.0, microbatch_s=0.0)
NO_OVERLAP = Overlap(
    gradient_reduce=False, parameter_gather=False, pipeline=False, tensor_backward=False, tensor_pipelined=False, gradient_bucket_bytes=1e12
)
OVERLAP = replace(NO_OVERLAP, gradient_reduce=True, parameter_gather=True, pipeline=True, gradient_bucket_bytes=4e6)


def software(**changes: Any) -> Software:
    """Return a framework that hides nothing and costs no host time."""
    values: dict[str, Any] = {
        "name": "hand software", "key": "hand", "attention": {"default": "flash2"}, "fused": frozenset({"optimizer"}),
        "state": TrainingState(parameter_bytes=2.0, gradient_bytes=4.0, master_bytes=4.0, gather_bytes=2.0, reduce_bytes=4.0),
        "overlap": NO_OVERLAP, "host": NO_HOST, "selective": "core_attention", "scatter_gather": False,
        "matmul_scale": 1.0, "stream_scale": 1.0, "collective_scale": 1.0, "context_bytes": 0.0, "fragmentation": 0.0,
    }  # fmt: skip
    return Software(**{**values, **changes})


def linear_model(*, layers: int, tokens: int = 1000, width: int = 1000, boundary: bool = False) -> Model:
    """Return layers of one square product each and nothing at the ends; without `boundary` its stages exchange nothing.

    Forward is one product of 2·tokens·width² FLOPs, backward two.
    """
    step = Linear(name="linear", tokens=tokens, in_features=width, out_features=width, bias=False, cut="column")
    block = Block(name="layer", steps=(step,), input_elements=tokens * width if boundary else 0)
    return Model(
        name="hand model", key="hand", seq_len=tokens, prologue=(), layers=((block, layers),),
        epilogue=(), tied_parameters=0, tensor_dims={"width": width},
    )  # fmt: skip
