"""The result of a simulation: time, energy, memory and money of one training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretrain.errors import UsageError
from foretrain.sim.jitter import Distribution
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.timeline import Timeline

if TYPE_CHECKING:
    import pandas as pd

J_PER_KWH = 3.6e6
DETAILS = ("segment", "op")
"""Levels of detail: whole passes, or every kernel."""
BREAKDOWN = (
    "math", "memory", "overhead",
    "tensor_parallel", "context_parallel", "expert_parallel", "pipeline_parallel", "data_parallel",
    "bubble", "optimizer", "host",
)
"""Classes of the breakdown, in its order of priority: matrix math, memory-bound kernels, gaps and floors of kernels, exposed
communication by kind, waiting for other stages, the optimizer step, waiting for the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """Peak memory of one accelerator of a pipeline stage and what it is made of, at the moment of the peak."""

    stage: int
    peak_bytes: float
    capacity_bytes: float
    components: Mapping[str, float]
    """parameters, gradients, optimizer, activations, buffers, framework; sums to `peak_bytes`."""
    context_bytes: float
    """Of `framework`, what lies outside the allocator: context, communicators, workspaces."""

    @property
    def reserved_bytes(self) -> float:
        """What the framework's allocator has reserved at the peak (`torch.cuda.max_memory_reserved`)."""
        return self.peak_bytes - self.context_bytes

    @property
    def fits(self) -> bool:
        """Whether the peak is within the accelerator's memory."""
        return self.peak_bytes <= self.capacity_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One optimizer step of a job. Times in seconds, energies in joules, for the whole cluster unless a name says otherwise."""

    model: str
    cluster: str
    software: str
    plan: Plan
    recipe: Recipe
    accelerators: int
    seq_len: int | None
    """Tokens of a sequence; None where a sample is no sequence."""
    parameters: int
    step_s: float
    model_flop: float
    """Model FLOPs of a step: no recompute, causal attention in full (PaLM, appendix B)."""
    causal_flop: float
    """The same with the masked half of causal attention removed."""
    hardware_flop: float
    """What the accelerators run, recompute included."""
    peak_flop_per_s: float
    """Dense peak of all accelerators together in the precision of the recipe."""
    energy: Mapping[str, float]
    """Joules by part: idle, host, network, math, memory, links, busy, supply, facility; sums to `energy_j`."""
    cost_usd: float
    electricity_usd: float
    co2_g: float
    memory: tuple[StageMemory, ...]
    breakdown: Mapping[str, float]
    """Seconds by class, averaged over ranks; sums to `step_s`."""
    hidden: Mapping[str, float]
    """Seconds of communication by kind that ran behind compute."""
    assumed: tuple[str, ...]
    detail: str
    power: Mapping[str, float] = field(default_factory=dict)
    """Mean and peak watts: `accelerator_mean_w`, `accelerator_peak_w`, and likewise of a node at the wall and of the cluster."""
    image_size: int | None = None
    """Pixels a side of an image; None where a sample is no image."""
    item: str = "token"
    """What training is counted in: token, image or sample."""
    clock_hz: float = 0.0
    """Mean clock of the compute units while they work; 0 where the accelerator's profile has no clocks."""
    trained_parameters: int = 0
    """Parameters that are not frozen."""
    grid: str = ""
    """Source and year of the grid's carbon."""
    jitter: Distribution | None = None
    """How drawn steps are distributed, where passes jitter; `step_s` is the step without chance."""
    replay: Callable[[str], Timeline] = field(repr=False, compare=False)
    """Plays the same job again at a level of detail and returns its timeline."""

    @property
    def samples_per_s(self) -> float:
        """Samples (sequences, images) trained per second."""
        return self.recipe.global_batch / self.step_s

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens trained per second; None where a sample is no sequence."""
        return None if self.seq_len is None else self.samples_per_s * self.seq_len

    @property
    def items(self) -> int:
        """What one step trains, counted in `item`s: tokens of sequences, else samples."""
        return self.recipe.global_batch * (1 if self.seq_len is None else self.seq_len)

    @property
    def items_per_s_per_accelerator(self) -> float:
        """Tokens, images or samples trained per second and accelerator."""
        return self.items / self.step_s / self.accelerators

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation, causal attention counted in full."""
        return self.model_flop / (self.step_s * self.peak_flop_per_s)

    @property
    def mfu_causal(self) -> float:
        """Model FLOPs utilisation without the masked half of attention."""
        return self.causal_flop / (self.step_s * self.peak_flop_per_s)

    @property
    def hfu(self) -> float:
        """Hardware FLOPs utilisation: what was run, recompute included."""
        return self.hardware_flop / (self.step_s * self.peak_flop_per_s)

    @property
    def energy_j(self) -> float:
        """Energy of the step at the facility's meter."""
        return sum(self.energy.values())

    @property
    def energy_kwh(self) -> float:
        """Energy of the step at the facility's meter, in kilowatt-hours."""
        return self.energy_j / J_PER_KWH

    @property
    def mean_power_w(self) -> float:
        """Mean power of the step at the facility's meter."""
        return self.energy_j / self.step_s

    @property
    def peak_memory_bytes(self) -> tuple[float, ...]:
        """Peak memory of one accelerator, per pipeline stage."""
        return tuple(stage.peak_bytes for stage in self.memory)

    @property
    def fits(self) -> bool:
        """Whether every stage fits its accelerator's memory."""
        return all(stage.fits for stage in self.memory)

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain data that JSON can hold, in SI units with the unit in each key."""
        from foretrain.sim.report import prediction_to_dict  # noqa: PLC0415  # report reads this module

        return prediction_to_dict(self)

    def to_frame(self) -> pd.DataFrame:
        """Return the prediction as a table of one row, nested fields under dotted names."""
        from foretrain.sim.report import prediction_to_frame  # noqa: PLC0415  # report reads this module

        return prediction_to_frame(self)

    def to_trace(self, path: str | Path, detail: str = "segment") -> None:
        """Write the timeline as Chrome trace JSON that Perfetto opens, gzipped where the path ends in `.gz`.

        Raises:
            OutputError: where the file cannot be written.
        """
        from foretrain.sim.trace import write_trace  # noqa: PLC0415  # numpy, only where a trace is written

        write_trace(self.timeline(detail), Path(path), title=f"{self.model} on {self.cluster}")

    def timeline(self, detail: str = "segment") -> Timeline:
        """Play the job again and return what each simulated rank did, without the steady-state jump.

        Raises:
            UsageError: where `detail` is neither `segment` nor `op`.
        """
        if detail not in DETAILS:
            raise UsageError(f"detail={detail!r} is unknown; use one of {', '.join(DETAILS)}")
        return self.replay(detail)
