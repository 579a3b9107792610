"""From a validated hardware profile to the dataclasses that the simulator reads."""

from __future__ import annotations

from typing import Any

from foretrain.hardware.accelerator import Accelerator, AttentionCurve, MatmulCurve, MemoryCurve
from foretrain.hardware.cluster import Cluster, Facility
from foretrain.hardware.fabric import Fabric, Protocol
from foretrain.hardware.node import Node
from foretrain.hardware.schema import AcceleratorFile, ClusterFile, FabricFile, FacilityFile, NodeFile
from foretrain.provenance import assumed


def accelerator(file: AcceleratorFile, data: Any, default_key: str) -> Accelerator:
    """Return the accelerator of a profile; `default_key` is its key where the profile names none."""
    return Accelerator(
        name=file.name,
        key=file.key or default_key,
        peak_flop_per_s=dict(file.peak_flop_per_s),
        memory_bytes=file.memory.capacity_bytes,
        memory_bytes_per_s=file.memory.bandwidth_bytes_per_s,
        cache_bytes=file.cache_bytes,
        compute_units=file.compute_units,
        matmul=MatmulCurve(**_fields(file.matmul)),
        memory=MemoryCurve(efficiency=file.memory.efficiency, half_bytes=file.memory.half_bytes),
        attention={name: AttentionCurve(**_fields(curve)) for name, curve in file.attention.items()},
        kernel_floor_s=file.kernel_floor_s,
        overlap_loss=file.overlap_loss,
        spread=file.spread,
        host_bytes_per_s=file.host_bytes_per_s,
        power=file.power.power(),
        convolution=None if file.convolution is None else file.convolution.curve(),
        measured=None if file.measured is None else file.measured.tables(),
        assumed=assumed(data, file),
    )


def node(file: NodeFile, data: Any, default_key: str) -> Node:
    """Return the node of a profile."""
    own = {key: value for key, value in data.items() if key not in ("scale_out", "facility")}
    return Node(
        name=file.name,
        accelerator=accelerator(file.accelerator, data["accelerator"], default_key),
        accelerators=file.accelerators,
        scale_up=_fabric(file.scale_up, domain=file.scale_up.domain, bandwidth_bytes_per_s=file.scale_up.bandwidth_bytes_per_s),
        nics=file.nics,
        nic_bytes_per_s=file.nic_bytes_per_s,
        host_w=file.host_w,
        host_busy_w=file.host_busy_w,
        nic_w=file.nic_w,
        switch_w=file.switch_w,
        fan_w=file.fan_w,
        host_memory_bytes_per_s=file.host_memory_bytes_per_s,
        supply_efficiency=file.supply_efficiency,
        usd_per_hour=file.usd_per_hour,
        assumed=assumed(own, file),
    )


def cluster(file: ClusterFile, data: Any, default_key: str) -> Cluster:
    """Return the cluster of a profile."""
    return _cluster(file.name, file, data, default_key)


def cluster_of(name: str, file: NodeFile, nodes: int, data: Any, default_key: str) -> Cluster:
    """Return `nodes` nodes of a node profile behind the network that the profile gives them."""
    whole = ClusterFile.model_construct(name=name, node=file, nodes=nodes, scale_out=None, facility=None)
    return _cluster(name, whole, {"node": data}, default_key)


def _cluster(name: str, file: ClusterFile, data: Any, default_key: str) -> Cluster:
    inner = data["node"]
    # What the cluster says of its network and facility stands for what its node says.
    outer = {key: data.get(key) or inner[key] for key in ("scale_out", "facility")}
    own = {key: value for key, value in inner.items() if key not in outer}
    scale_out = file.scale_out or file.node.scale_out
    facility = file.facility or file.node.facility
    shown = ClusterFile.model_construct(name=name, node=file.node, nodes=file.nodes, scale_out=scale_out, facility=facility)
    built = node(file.node, inner, default_key)
    return Cluster(
        name=name,
        node=built,
        nodes=file.nodes,
        scale_out=_fabric(
            scale_out,
            domain=scale_out.domain or file.nodes * built.accelerators,
            bandwidth_bytes_per_s=scale_out.bandwidth_bytes_per_s or built.network_bytes_per_s,
        ),
        facility=_facility(facility, outer["facility"]),
        assumed=assumed({"node": own, **outer}, shown),
    )


def _fabric(file: FabricFile, *, domain: int, bandwidth_bytes_per_s: float) -> Fabric:
    quick = {name: Protocol(**_fields(given)) for name, given in (("ll", file.ll), ("ll128", file.ll128)) if given is not None}
    return Fabric(**{**_fields(file), **quick, "domain": domain, "bandwidth_bytes_per_s": bandwidth_bytes_per_s})


def _facility(file: FacilityFile, data: Any) -> Facility:
    return Facility(**_fields(file), grid=_said(data["co2_g_per_kwh"]))


def _said(figure: Any) -> str:
    """Return the source of a figure with its year, as a report names it."""
    source = getattr(figure, "source", None) or {}
    year = f" ({source['date']})" if source.get("date") else ""
    return f"{source.get('title', '')}{year}"


def _fields(file: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(file).items() if name != "sources"}
