"""The shape of hardware profiles: what a YAML file must and may hold. Keys are field names without their unit.

The description of a required figure says which calculations need it: it is told to whom leaves it out.
"""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from foretrain.fields import KERNELS, words_of
from foretrain.hardware.accelerator import AcceleratorPower, ClockCurve, ConvolutionCurve, ConvolutionRates
from foretrain.hardware.measured_schema import MeasuredFile, Messages
from foretrain.quantity import Count, Number, Numbers, Pairs, ProfileFile, Strict, one_of

Dtype = one_of("fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4")
KernelName = one_of(*KERNELS)
Topology = one_of(*words_of("topology"))
Library = one_of(*words_of("library"))


class MatmulFile(Strict):
    """See `MatmulCurve`."""

    sustained: dict[Dtype, Number] = Field(description="matrix products")  # type: ignore[valid-type]
    tiles: Pairs = Field(description="matrix products")
    tile_efficiency: Numbers = Field(description="matrix products")
    depth_fill: Number = Field(description="matrix products")
    wave_smoothing: Number = Field(description="matrix products")

    @model_validator(mode="after")
    def _one_efficiency_per_tile(self) -> Self:
        if len(self.tiles) != len(self.tile_efficiency):
            raise ValueError(f"{len(self.tile_efficiency)} values of tile_efficiency for {len(self.tiles)} tiles; give one per tile")
        return self


class ConvolutionRatesFile(Strict):
    """See `ConvolutionRates`."""

    forward: Number
    data: Number
    weight: Number
    strided_data: Number
    depth_fill: Number


class ConvolutionFile(Strict):
    """See `ConvolutionCurve`; without `matrix` all dtypes run on vector units."""

    matrix: ConvolutionRatesFile | None = None
    vector: ConvolutionRatesFile
    winograd: Number
    channel_multiple: Count
    few_channels: Number
    direct: Number

    def curve(self) -> ConvolutionCurve:
        """Return what the simulator reads."""
        vector = ConvolutionRates(**vars(self.vector))
        matrix = None if self.matrix is None else ConvolutionRates(**vars(self.matrix))
        return ConvolutionCurve(**{**vars(self), "vector": vector, "matrix": matrix})


class AttentionFile(Strict):
    """See `AttentionCurve`."""

    forward: Number = Field(description="fused attention kernels")
    backward: Number = Field(description="fused attention kernels")
    half_length: Number = Field(description="fused attention kernels")
    narrow_head: Number = Field(description="fused attention kernels")


class MemoryFile(Strict):
    """The device memory and how much of its bandwidth kernels get."""

    capacity_bytes: Number = Field(description="peak memory and what fits")
    bandwidth_bytes_per_s: Number = Field(description="memory-bound kernels, the optimizer and rooflines")
    efficiency: Number = Field(description="memory-bound kernels and the optimizer")
    half_bytes: Number = Field(alias="half_size", description="memory-bound kernels")


class ClocksFile(Strict):
    """See `ClockCurve`."""

    lowest_hz: Number = Field(description="power caps and clocks")
    highest_hz: Number = Field(description="power caps and clocks")
    reference_hz: Number = Field(description="power caps and clocks")
    knee_hz: Number = Field(description="power caps and clocks")
    highest_voltage: Number = Field(description="power caps and clocks")
    math_share: Number = Field(description="power caps and clocks")
    memory_share: Number = Field(description="power caps and clocks")
    window_s: Number = Field(description="power caps and clocks")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        ClockCurve(**vars(self))
        return self


class PowerFile(Strict):
    """See `AcceleratorPower`. `cap` and `clock` are settings that hold unless the command line says otherwise."""

    idle_w: Number = Field(description="energy, carbon and power caps")
    limit_w: Number = Field(description="energy, carbon and power caps")
    math_j_per_flop: dict[Dtype, Number] = Field(description="energy and carbon")  # type: ignore[valid-type]
    memory_j_per_byte: Number = Field(description="energy and carbon")
    link_j_per_byte: Number = Field(description="energy and carbon")
    busy_w: Number = Field(description="energy and carbon")
    rest_w: Number = 0.0
    operand_j_per_byte: Number = 0.0
    padding_share: Number = 1.0
    clocks: ClocksFile | None = None
    cap_w: Number | None = None
    clock_hz: Number | None = None

    @model_validator(mode="after")
    def _idle_below_limit(self) -> Self:
        if self.idle_w >= self.limit_w:
            raise ValueError(f"idle of {self.idle_w:g} W is not below the limit of {self.limit_w:g} W; correct one of them")
        self.power()
        return self

    def power(self) -> AcceleratorPower:
        """Return what the simulator reads; raises ProfileError where a setting is out of its range."""
        clocks = None if self.clocks is None else ClockCurve(**vars(self.clocks))
        return AcceleratorPower(**{**vars(self), "clocks": clocks})


class AcceleratorFile(ProfileFile):
    """See `Accelerator`."""

    key: str = ""
    peak_flop_per_s: dict[Dtype, Number] = Field(min_length=1, description="matrix products, MFU and rooflines")  # type: ignore[valid-type]
    memory: MemoryFile = Field(description="memory-bound kernels and peak memory")
    cache_bytes: Number
    compute_units: Count = Field(description="matrix products")
    matmul: MatmulFile = Field(description="matrix products")
    attention: dict[KernelName, AttentionFile] = Field(default_factory=dict)  # type: ignore[valid-type]
    kernel_floor_s: Number = Field(description="times of all kernels")
    overlap_loss: Number = Field(description="overlapped communication")
    spread: Number = Field(description="steps on more than one accelerator")
    host_bytes_per_s: Number = Field(alias="host_bandwidth")
    power: PowerFile = Field(description="energy, carbon and power caps")
    convolution: ConvolutionFile | None = Field(default=None, description="convolutions")
    measured: MeasuredFile | None = None


class ProtocolFile(Strict):
    """See `Protocol`."""

    base_latency_s: Number
    step_latency_s: Number
    efficiency: Number


class FabricFile(ProfileFile):
    """See `Fabric`. Between nodes, bandwidth is that of the NICs and the domain the whole cluster, unless given."""

    topology: Topology  # type: ignore[valid-type]
    domain: Count | None = None
    bandwidth_bytes_per_s: Number | None = None
    efficiency: Number = Field(description="collectives")
    point_to_point_efficiency: Number = Field(description="pipeline sends")
    base_latency_s: Number = Field(description="collectives")
    step_latency_s: Number = Field(description="collectives")
    half_bytes_per_rank: Number = Field(alias="half_size_per_rank", description="collectives")
    library: Library = "nccl"  # type: ignore[valid-type]
    ll: ProtocolFile | None = None
    ll128: ProtocolFile | None = None
    in_network_reduction: Number = 0.0
    in_network_latency_s: Number = 0.0
    point_to_point_latency_s: Number = 0.0
    island: Count = 0
    island_bytes_per_s: Number = Field(default=0.0, alias="island_bandwidth")
    pod: Count = 0
    oversubscription: Number = 1.0
    wraparound: Count = 0
    measured: Messages = ()

    @model_validator(mode="after")
    def _beyond_the_island(self) -> Self:
        if self.island and not self.island_bytes_per_s:
            raise ValueError(f"island of {self.island} has no island_bandwidth; add what a group gets beyond its island")
        return self


class ScaleUpFile(FabricFile):
    """The fabric inside a node or pod, which must say how far it reaches and how fast it is."""

    domain: Count = Field(description="placement of groups")
    bandwidth_bytes_per_s: Number = Field(description="collectives")


class FacilityFile(ProfileFile):
    """See `Facility`."""

    pue: Number = Field(description="energy, carbon and electricity")
    usd_per_kwh: Number = Field(description="cost of electricity")
    co2_g_per_kwh: Number = Field(description="carbon")
    network_w_per_accelerator: Number = Field(description="energy and carbon")


class NodeFile(ProfileFile):
    """See `Node`; with the network and the facility that its clusters have unless they say otherwise."""

    PARTS: ClassVar[tuple[str, ...]] = ("accelerator", "scale_up", "scale_out", "facility")
    accelerator: AcceleratorFile
    accelerators: Count = Field(description="placement of groups")
    scale_up: ScaleUpFile
    nics: Count = Field(description="collectives between nodes")
    nic_bytes_per_s: Number = Field(alias="nic_bandwidth", description="collectives between nodes")
    host_w: Number = Field(description="energy and carbon")
    host_busy_w: Number = 0.0
    nic_w: Number = 0.0
    switch_w: Number = 0.0
    fan_w: Number = 0.0
    host_memory_bytes_per_s: Number = Field(default=0.0, alias="host_memory_bandwidth")
    supply_efficiency: Number = 1.0
    usd_per_hour: Number = Field(description="cost")
    scale_out: FabricFile
    facility: FacilityFile


class ClusterFile(ProfileFile):
    """See `Cluster`."""

    PARTS: ClassVar[tuple[str, ...]] = ("node", "scale_out", "facility")
    node: NodeFile
    nodes: Count
    scale_out: FabricFile | None = None
    facility: FacilityFile | None = None
