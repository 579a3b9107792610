"""What is simulated for a measured sweep over clocks: a pipeline stage of a like job at each clock of the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from foretrain.errors import ProfileError, nearest
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.models.load import list_models, load_model
from foretrain.models.model import Model
from foretrain.sim.pareto import DIRECTIONS, StagePoint, stage_points
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.software.load import load_software
from foretrain.units import parse, show
from foretrain.validate.chips import accelerator_named

ALIASES = {"gpt3small": "gpt3-125m", "gpt3medium": "gpt3-350m", "gpt3large": "gpt3-760m", "gpt3xl": "gpt3-1.3b"}
"""Sizes of GPT-3 that Brown et al., arXiv:2005.14165, table 2.1, call by a word."""
FREE_BYTES_PER_S = parse("1 EB/s", "B/s")
"""Bandwidth of links that cost nothing: the passes of a sweep are timed on the accelerator alone, which its power shows."""
NODE = "dgx-a100-80gb"
"""A node to put the accelerators into; what stands beside them does not count."""
TENSOR = (1, 2, 4, 8)
"""Tensor-parallel degrees that are tried: the least that holds the training state is assumed."""
STATE_BYTES_PER_PARAMETER = 16.0
"""Weights and gradients of 2 bytes, master copy and two moments of 4: Rajbhandari et al., arXiv:1910.02054, section 3.1."""
STATE_SHARE = 0.75
"""Share of the memory that the training state may take: activations want the rest."""
PRECISIONS = ("bf16", "fp16", "fp32")
"""What is trained in where nothing is said: the first that the accelerator has."""
SOFTWARE = "megatron-lm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The stages of one job at every clock, and what was assumed of it."""

    points: Mapping[tuple[int, str, float], StagePoint]
    stages: int
    assumed: tuple[str, ...]

    def point(self, place: str, instruction: str, clock_hz: float) -> StagePoint:
        """Return a pass of the `first` stage, the `last`, or one in the `middle`.

        Raises:
            ProfileError: where the instruction is none of a stage, or the clock none that the accelerator runs.
        """
        if instruction not in DIRECTIONS:
            raise ProfileError(f"instruction is {instruction!r}; {' or '.join(DIRECTIONS)} is expected")
        key = ({"first": 0, "last": self.stages - 1}.get(place, min(1, self.stages - 1)), instruction, clock_hz)
        if key not in self.points:
            raise ProfileError(f"clock of {show(clock_hz, 'Hz', 4)} is outside what the profile of the accelerator says it can run")
        return self.points[key]

    def runs_at(self, clock_hz: float) -> bool:
        """Tell whether the accelerator can run at a clock."""
        return any(clock == clock_hz for _, _, clock in self.points)


def sweep(
    model: str, accelerator: str, stages: int, clocks_hz: Iterable[float], *, precision: str = "", drawn_w: float = 0.0
) -> Sweep:  # fmt: skip
    """Return what the simulator says to a sweep over clocks of one model on one accelerator in about `stages` stages.

    Without a `precision` the accelerator's usual one is taken. `drawn_w` is the highest power that was measured: a part whose limit
    is below it is not the one that was used.

    Raises:
        ForetrainError: where the model or accelerator is unknown, or has no clocks, or is too small.
    """
    name, model_notes = model_named(model)
    trained = load_model(name)
    chip, chip_notes = accelerator_named(accelerator, drawn_w)
    if chip.power.clocks is None:
        raise ProfileError(f"the profile of {chip.name} has no power.clocks, which a sweep over clocks needs")
    depth = _divisor(trained, stages)
    tensor = _tensor(trained, chip, depth)
    clocks = chip.power.clocks
    within = [hz for hz in clocks_hz if clocks.lowest_hz <= hz <= clocks.highest_hz]
    recipe = Recipe(global_batch=depth, precision=precision or next(name for name in PRECISIONS if name in chip.peak_flop_per_s))
    cluster, plan = _cluster(chip, tensor * depth), Plan(tp=tensor, pp=depth)
    points = stage_points(trained, cluster, plan, recipe, within, software=load_software(SOFTWARE))
    size = f"tensor-parallel ranks: {tensor}, stages: {depth}, one sequence of {trained.seq_len:,} tokens, no transfers, {SOFTWARE}"
    return Sweep(
        points={(p.stage, p.instruction, p.clock_hz): p for p in points}, stages=depth, assumed=(*model_notes, *chip_notes, size)
    )  # fmt: skip


def model_named(words: str) -> tuple[str, tuple[str, ...]]:
    """Return the library's name of a model, and what had to be assumed: a family without a size is its largest.

    Raises:
        ProfileError: where the library holds none of that name.
    """
    said = _squeezed(words)
    names = {_squeezed(name): name for name in list_models()} | ALIASES
    if said in names:
        return names[said], ()
    family = [name for name in list_models() if said and _squeezed(name.partition("-")[0]) == said]
    if not family:
        raise ProfileError(f"no model of the library is called {words!r}{nearest(words, list_models())}")
    largest = max(family, key=lambda name: load_model(name).parameters)
    return largest, (f"{words} taken as {largest}",)


def _squeezed(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _divisor(model: Model, stages: int) -> int:
    """Return the greatest number of stages, at most `stages`, that divides the layers."""
    layers = sum(copies for _, copies in model.layers)
    return next(count for count in range(stages, 0, -1) if layers % count == 0)


def _tensor(model: Model, chip: Accelerator, depth: int) -> int:
    """Return the least tensor-parallel degree at which the training state of a stage fits; the greatest where none does."""
    state_bytes = STATE_BYTES_PER_PARAMETER * model.parameters / depth
    return next((degree for degree in TENSOR if state_bytes / degree <= STATE_SHARE * chip.memory_bytes), TENSOR[-1])


def _cluster(chip: Accelerator, accelerators: int) -> Cluster:
    one = load_cluster(f"{NODE}:1")
    cluster = load_cluster(f"{NODE}:{-(-accelerators // one.accelerators)}")
    links = replace(
        one.node.scale_up, bandwidth_bytes_per_s=FREE_BYTES_PER_S, base_latency_s=0.0, step_latency_s=0.0, in_network_latency_s=0.0,
        point_to_point_latency_s=0.0, ll=None, ll128=None, island=0,
    )  # fmt: skip
    return replace(cluster, node=replace(cluster.node, accelerator=chip, scale_up=links))
