"""What is simulated for a measured sweep over clocks: a pipeline stage of a like job at each clock of the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from foretrain.errors import ProfileError, nearest
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_accelerator, load_cluster
from foretrain.models.load import load_model
from foretrain.models.model import Model
from foretrain.sim.pareto import DIRECTIONS, StagePoint, stage_points
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.software.load import load_software
from foretrain.units import parse, show

Value = TypeVar("Value")

MODELS = {"bloom": "bloom-176b", "bloom-176b": "bloom-176b", "gpt3": "gpt3-175b", "gpt-3": "gpt3-175b", "gpt3-175b": "gpt3-175b"}
MACHINES = {
    "A100-SXM": ("dgx-a100-80gb", "a100-sxm-80gb-500w"),
    "A100-PCIe": ("pcie-8x-a100-80gb", "a100-pcie-80gb"),
    "A40": ("pcie-4x-a40", "a40"),
}
"""Node and accelerator of each name; the A100 of the sweeps draws 474 W at its highest clock, so it is the part of 500 W."""
FREE_BYTES_PER_S = parse("1 EB/s", "B/s")
"""Bandwidth of links that cost nothing: the passes of a sweep are timed on the accelerator alone, which its power shows."""
TENSOR = 8
"""Tensor-parallel ranks that are assumed, at most the accelerators of a node."""
SOFTWARE = "megatron-lm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The stages of one job at every clock, and what was assumed of it."""

    points: Mapping[tuple[int, str, float], StagePoint]
    stages: int
    assumed: tuple[str, ...]

    def point(self, *, last: bool, instruction: str, clock_hz: float) -> StagePoint:
        """Return a pass of the last stage, or of one in the middle.

        Raises:
            ProfileError: where the instruction is none of a stage, or the clock none that the accelerator runs.
        """
        if instruction not in DIRECTIONS:
            raise ProfileError(f"instruction is {instruction!r}; {' or '.join(DIRECTIONS)} is expected")
        key = (self.stages - 1 if last else min(1, self.stages - 1), instruction, clock_hz)
        if key not in self.points:
            raise ProfileError(f"clock of {show(clock_hz, 'Hz', 4)} is outside what the profile of the accelerator says it can run")
        return self.points[key]


def sweep(model: str, accelerator: str, stages: int, clocks_hz: Iterable[float]) -> Sweep:
    """Return what the simulator says to a sweep over clocks of one model on one accelerator in about `stages` stages.

    Raises:
        ForetrainError: where the model or accelerator is unknown.
    """
    trained = load_model(_known("model", model, MODELS))
    node, chip = _known("accelerator", accelerator, MACHINES)
    depth = _divisor(trained, stages)
    cluster, tensor = _cluster(node, chip, depth)
    recipe = Recipe(global_batch=depth, precision="bf16")
    clocks = cluster.accelerator.power.clocks
    within = [hz for hz in clocks_hz if clocks is None or clocks.lowest_hz <= hz <= clocks.highest_hz]
    points = stage_points(trained, cluster, Plan(tp=tensor, pp=depth), recipe, within, software=load_software(SOFTWARE))
    assumed = f"{tensor} tensor-parallel ranks, {depth} stages, one sequence of {trained.seq_len:,} tokens, no transfers, {SOFTWARE}"
    return Sweep(points={(p.stage, p.instruction, p.clock_hz): p for p in points}, stages=depth, assumed=(assumed,))


def _known(what: str, name: str, known: Mapping[str, Value]) -> Value:
    if name not in known:
        raise ProfileError(f"{what} {name!r} has no profile for sweeps over clocks; known are {', '.join(known)}{nearest(name, known)}")
    return known[name]


def _divisor(model: Model, stages: int) -> int:
    """Return the greatest number of stages, at most `stages`, that divides the layers."""
    layers = sum(copies for _, copies in model.layers)
    return next(count for count in range(stages, 0, -1) if layers % count == 0)


def _cluster(node: str, accelerator: str, depth: int) -> tuple[Cluster, int]:
    one = load_cluster(f"{node}:1")
    tensor = min(TENSOR, one.accelerators)
    cluster = load_cluster(f"{node}:{-(-tensor * depth // one.accelerators)}")
    links = replace(
        one.node.scale_up, bandwidth_bytes_per_s=FREE_BYTES_PER_S, base_latency_s=0.0, step_latency_s=0.0, in_network_latency_s=0.0,
        point_to_point_latency_s=0.0, ll=None, ll128=None, island=0,
    )  # fmt: skip
    return replace(cluster, node=replace(cluster.node, accelerator=load_accelerator(accelerator), scale_up=links)), tensor
