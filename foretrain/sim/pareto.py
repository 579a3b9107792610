"""Time against energy: the same job at every clock and under every cap, the points that nothing beats, and its stages one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from foretrain.errors import UsageError
from foretrain.hardware.accelerator import Accelerator, ClockCurve
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.power import operated
from foretrain.models.model import Model
from foretrain.sim.lower import Lowered, lower
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.program import COMPUTE
from foretrain.sim.recipe import Recipe
from foretrain.sim.segment import Segment
from foretrain.sim.simulate import simulate
from foretrain.software.profile import Software
from foretrain.units import parse

DIRECTIONS = ("forward", "backward")
MEGAHERTZ = parse("1 MHz", "Hz")
ALIKE = 1e-6
"""Share of the energy by which two points must differ to be two: clocks above what the power limit leaves all run alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A power cap or a fixed clock; the default operation where both are None."""

    cap_w: float | None = None
    clock_hz: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operated:
    """One step of a job under a setting; joules at the facility's meter."""

    setting: Setting
    prediction: Prediction

    @property
    def step_s(self) -> float:
        """Time of the step."""
        return self.prediction.step_s

    @property
    def energy_j(self) -> float:
        """Energy of the step."""
        return self.prediction.energy_j


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePoint:
    """One pass of one pipeline stage at a clock, on one accelerator: seconds on the device and joules, idle power included."""

    stage: int
    instruction: str
    clock_hz: float
    time_s: float
    energy_j: float


def clock_steps(accelerator: Accelerator, count: int, lowest_share: float = 0.5) -> tuple[float, ...]:
    """Return `count` clocks from the highest down to `lowest_share` of it, evenly spaced and in whole megahertz.

    Raises:
        UsageError: where the profile of the accelerator has no clocks.
    """
    clocks = _clocks(accelerator)
    low = max(clocks.lowest_hz, lowest_share * clocks.highest_hz)
    step_hz = (clocks.highest_hz - low) / (count - 1)
    return tuple(MEGAHERTZ * round((clocks.highest_hz - step_hz * step) / MEGAHERTZ) for step in range(count))


def cap_steps(accelerator: Accelerator, count: int, lowest_share: float = 0.4) -> tuple[float, ...]:
    """Return `count` caps in whole watts from the power limit down to `lowest_share` of the way from idle; raises as `clock_steps`."""
    _clocks(accelerator)
    power = accelerator.power
    low = power.idle_w + lowest_share * (power.limit_w - power.idle_w)
    return tuple(float(round(power.limit_w - (power.limit_w - low) * step / (count - 1))) for step in range(count))


def operated_steps(
    model: Model, cluster: Cluster, plan: Plan, recipe: Recipe, settings: Iterable[Setting], *, software: Software | None = None
) -> list[Operated]:
    """Return one step of a job under each setting."""
    return [
        Operated(
            setting=setting,
            prediction=simulate(model, operated(cluster, cap_w=setting.cap_w, clock_hz=setting.clock_hz), plan, recipe, software=software),
        )
        for setting in settings
    ]


def frontier(points: Sequence[Operated]) -> list[Operated]:
    """Return the points that no other beats in both time and energy, the fastest first; of points that are alike, one."""
    best: list[Operated] = []
    for point in sorted(points, key=lambda each: (each.step_s, each.energy_j)):
        if not best or point.energy_j < best[-1].energy_j * (1.0 - ALIKE):
            best.append(point)
    return best


def stage_points(
    model: Model, cluster: Cluster, plan: Plan, recipe: Recipe, clocks_hz: Iterable[float], *, software: Software
) -> list[StagePoint]:
    """Return forward and backward of each pipeline stage at each clock, chunks of a stage summed."""
    model = model.at_sequence(recipe.seq_len).at_image(recipe.image_size)
    points = []
    for clock_hz in clocks_hz:
        lowered = lower(place(model, operated(cluster, clock_hz=clock_hz), plan, recipe), software)
        points += [_point(lowered, stage, direction, clock_hz) for stage in range(plan.pp) for direction in DIRECTIONS]
    return points


def stage_csv(points: Iterable[StagePoint]) -> str:
    """Return stage points as the CSV that Perseus reads: stage, instruction, frequency in MHz, seconds, joules.

    **Source:** ml-energy/zeus, `zeus.optimizer.pipeline_frequency` (Chung et al., Perseus, SOSP 2024).
    """
    lines = ["stage,instruction,frequency,time,energy"]
    lines += [f"{p.stage},{p.instruction},{p.clock_hz / MEGAHERTZ:.7g},{p.time_s:.9g},{p.energy_j:.9g}" for p in points]
    return "\n".join(lines) + "\n"


def _clocks(accelerator: Accelerator) -> ClockCurve:
    if accelerator.power.clocks is None:
        raise UsageError(f"{accelerator.name}: its profile has no clocks, which clocks and caps need; add power.clocks to it")
    return accelerator.power.clocks


def _point(lowered: Lowered, stage: int, direction: str, clock_hz: float) -> StagePoint:
    idle_w = lowered.placement.cluster.accelerator.power.idle_w
    passes = _passes(lowered, stage, direction)
    seconds = sum(segment.device_s for segment in passes)
    joules = sum(sum(segment.joules.values()) for segment in passes)
    return StagePoint(stage=stage, instruction=direction, clock_hz=clock_hz, time_s=seconds, energy_j=idle_w * seconds + joules)


def _passes(lowered: Lowered, stage: int, direction: str) -> list[Segment]:
    """Return the segments of one micro-batch in one direction: each of the body's, once."""
    program = next(program for program in lowered.job.programs if program.stage == stage)
    found: dict[int, Segment] = {}
    for repeat in program.repeats:
        for instruction in repeat.body:
            if instruction.opcode == COMPUTE and instruction.operand.name.split()[0] == direction:
                found[instruction.operand.index] = instruction.operand
    return list(found.values())
