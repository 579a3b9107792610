"""State and activations in the memory of the host: what crosses the host link, and what the CPUs do.

**Source:** Ren et al., ZeRO-Offload, arXiv:2101.06840, section 4 (gradients out behind backward, Adam on the CPUs, parameters back);
Rajbhandari et al., ZeRO-Infinity, arXiv:2104.07857, section 5 (parameters); Rhu et al., vDNN, arXiv:1602.08124 (activations).
"""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import PlanError
from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Model
from foretrain.sim.collectives import TransferCost
from foretrain.sim.offload_parts import offloaded
from foretrain.sim.optimizer_rules import FP32_BYTES, RULES
from foretrain.sim.plan import Plan
from foretrain.sim.precision import Numbers
from foretrain.sim.recipe import Recipe
from foretrain.sim.replication import SERVER

TOKEN_BYTES = 8.0
COLOURS = 3.0
WIRE_BYTES = 2.0
"""Gradients and parameters cross the host link in 16 bits."""


def check_offload(plan: Plan, recipe: Recipe, cluster: Cluster) -> None:
    """Refuse what has no place in the host's memory, or no figure of it.

    Raises:
        PlanError: names both options, or the field that is missing.
    """
    parts, node = offloaded(plan.offload), cluster.node
    if "parameters" in parts and plan.zero < 3:
        raise PlanError(f"offload=parameters needs them sharded, but zero={plan.zero} keeps them whole; use zero 3")
    if "optimizer" in parts and plan.replication == SERVER:
        raise PlanError(f"offload=optimizer, but replication={SERVER} has it on the servers; leave out one of them")
    if "optimizer" not in parts and plan.replication != SERVER:
        return
    asked = "offload=optimizer" if "optimizer" in parts else f"replication={SERVER}"
    rule = RULES[recipe.optimizer]
    if rule.sides or rule.orthogonal:
        raise PlanError(f"{asked}, but {recipe.optimizer} multiplies matrices, which CPUs are too slow for; use adamw or lion")
    if not node.host_memory_bytes_per_s:
        raise PlanError(f"{asked}, but {node.name} states no host_memory_bandwidth; add it to its profile, such as 200 GB/s")


def copy_cost(size_bytes: float, cluster: Cluster) -> TransferCost:
    """Return the cost of a copy over the host link of one accelerator."""
    full_s = size_bytes / cluster.accelerator.host_bytes_per_s
    return TransferCost(latency_s=0.0, full_s=full_s, port_bytes_per_s=0.0, network_bytes_per_s=0.0, wire_bytes=size_bytes)


def sample_bytes(model: Model) -> float:
    """Return the bytes of a sample on its way to the device: token numbers and targets of 8 bytes, or three fp32 colours a pixel."""
    if model.seq_len is not None:
        return 2.0 * TOKEN_BYTES * model.seq_len
    if model.image_size is not None:
        return COLOURS * FP32_BYTES * model.image_size**2
    raise PlanError(f"host.input_overlapped=false needs the bytes of a sample, but those of {model.name} have no size; leave it true")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUpdate:
    """Seconds of an optimizer step on the CPUs for one rank, beside the others of its node, and of bringing the parameters back."""

    update_s: float
    return_s: float


def host_update(updated: float, numbers: Numbers, plan: Plan, cluster: Cluster) -> HostUpdate:
    """Return what updating so many parameters takes: gradient read, master and moments read and written, 16-bit weight written."""
    state = numbers.state
    moved = state.gradient_bytes + 2 * ((state.master_bytes or state.parameter_bytes) + numbers.optimizer_bytes) + WIRE_BYTES
    if plan.replication == SERVER:
        servers = plan.servers or -(-plan.dp // cluster.node.accelerators)
        return HostUpdate(update_s=updated * moved / (servers * cluster.node.host_memory_bytes_per_s), return_s=0.0)
    beside = min(cluster.node.accelerators, plan.ranks)
    update_s = updated * moved * beside / cluster.node.host_memory_bytes_per_s
    return HostUpdate(update_s=update_s, return_s=copy_cost(updated * WIRE_BYTES, cluster).full_s)
