"""`simulate`: place, lower, play, and make a prediction of what was played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from foretrain.errors import PlanError, UsageError
from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Model
from foretrain.models.ops import KernelKind, Layout
from foretrain.sim.breakdown import breakdown, hidden
from foretrain.sim.disturbance import CALM, Disturbance
from foretrain.sim.energy import baseline_w, mean_clock_hz, step_energy, step_power
from foretrain.sim.engine import Engine, Played
from foretrain.sim.jitter import Distribution, Jitter, distribution
from foretrain.sim.loading import with_logging
from foretrain.sim.lower import Lowered, lower
from foretrain.sim.memory import stage_memory, static_bytes
from foretrain.sim.placement import Placement, place
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import DETAILS, J_PER_KWH, Prediction
from foretrain.sim.program import Job
from foretrain.sim.recipe import Recipe
from foretrain.sim.recorder import TimelineRecorder
from foretrain.sim.steady import SteadyState
from foretrain.sim.timeline import Timeline
from foretrain.software.load import load_software
from foretrain.software.profile import Software

if TYPE_CHECKING:
    from foretrain.sim.rank import Rank

DEFAULT_SOFTWARE = "megatron-lm"
S_PER_H = 3600.0
LONGEST_DRAW = 30_000_000
"""Instructions that are played for a distribution at most: some minutes."""
SEED_STEP = 1_000_003
"""Between the seeds of the samples of two runs."""


def simulate(  # noqa: PLR0913 - the public verb: four subjects, three options
    model: Model, cluster: Cluster, plan: Plan, recipe: Recipe, *, software: Software | None = None, detail: str = "segment", seed: int = 0,
    disturbance: Disturbance = CALM,
) -> Prediction:
    """Return the prediction of one optimizer step.

    `detail="segment"` plays whole passes and jumps the steady state; `"op"` plays every kernel of every pass. `disturbance`
    makes devices or links slow, or passes jitter: `step_s` is then the step without chance, and `jitter` the distribution of drawn ones,
    whose draws all come from `seed`.

    Raises:
        PlanError, RecipeError, ModelError: for what cannot be placed or run; the message names the nearest that can.
    """
    if detail not in DETAILS:
        raise UsageError(f"detail={detail!r} is unknown; use one of {', '.join(DETAILS)}")
    _refuse_names(model=model, cluster=cluster, software=software)
    assumed: tuple[str, ...] = ()
    if software is None:
        software = load_software(DEFAULT_SOFTWARE)
        assumed = (f"software {DEFAULT_SOFTWARE}",)
    model = model.at_sequence(recipe.seq_len).at_image(recipe.image_size)
    placement = place(model, cluster, plan, recipe, disturbance)
    lowered = _logging(placement, software, detail) or lower(placement, software)
    played = _engine(lowered.job, detail).play()
    predicted = _prediction(lowered, played, software, detail, assumed + _assumed(lowered.placement.model, cluster, software, plan))
    return predicted if not disturbance.jitter else replace(predicted, jitter=_drawn(lowered, disturbance, seed))


def _engine(job: Job, detail: str) -> Engine:
    return Engine(job, ops=detail == "op", watcher=SteadyState() if detail == "segment" else None)


def _logging(placement: Placement, software: Software, detail: str) -> Lowered | None:
    """Return the job of the mean step where the host does not read the loss in each, or takes time for it; None where it is as free.

    A step after one in which the host has waited for the device begins without a lead, the others with that of the step before.
    """
    if software.host.log_every == 1 and not software.host.log_s:
        return None
    synced = _engine(lower(placement, software).job, detail)
    synced_s = synced.play().step_s
    leads_s = synced.leads_s if software.host.log_every > 1 else ()
    ahead_s = _engine(replace(lower(placement, software).job, leads_s=leads_s), detail).play().step_s
    lowered = lower(placement, replace(software, host=with_logging(software.host, synced_s, ahead_s)))
    return replace(lowered, job=replace(lowered.job, leads_s=leads_s))


def _drawn(lowered: Lowered, disturbance: Disturbance, seed: int) -> Distribution:
    """Return the distribution of steps whose passes jitter.

    Raises:
        PlanError: where so many would take too long to play.
    """
    steps: list[float] = []
    for sample in range(disturbance.samples):
        engine = Engine(lowered.job, jitter=Jitter(disturbance.jitter, seed * SEED_STEP + sample))
        if engine.instructions * disturbance.samples > LONGEST_DRAW:
            raise PlanError(
                f"samples={disturbance.samples} of {engine.instructions:,} instructions each would take too long to play; use at most "
                f"{max(2, LONGEST_DRAW // engine.instructions):,}, a smaller global batch, or unfold less"
            )
        steps.append(engine.play().step_s)
    return distribution(steps)


def _refuse_names(**given: object) -> None:
    for what, value in given.items():
        if isinstance(value, str | Path):
            raise UsageError(f"{what}={str(value)!r} is a name; load it first: {what}=load_{what}({str(value)!r})")


def timeline(lowered: Lowered, detail: str = "segment") -> Timeline:
    """Return what each simulated rank of a job does, every micro-batch played."""
    placement = lowered.placement
    link_j = placement.cluster.accelerator.power.link_j_per_byte
    recorder = TimelineRecorder(lowered.job, tuple(static_bytes(state) for state in lowered.states), link_j)
    played = Engine(lowered.job, ops=detail == "op", recorder=recorder).play()
    return recorder.timeline(played.step_s, sum(baseline_w(placement.cluster).values()), played.ranks)


def _prediction(lowered: Lowered, played: Played, software: Software, detail: str, assumed: tuple[str, ...]) -> Prediction:
    placement, job = lowered.placement, lowered.job
    cluster, plan, recipe, model = placement.cluster, placement.plan, placement.recipe, placement.model
    energy = step_energy(cluster, played.ranks, job.segments, played.step_s)
    kwh = sum(energy.values()) / J_PER_KWH
    node_hours = plan.ranks / cluster.node.accelerators * played.step_s / S_PER_H
    return Prediction(
        model=model.name,
        cluster=cluster.name,
        software=software.name,
        plan=plan,
        recipe=recipe,
        accelerators=plan.ranks,
        seq_len=model.seq_len,
        image_size=model.image_size,
        item=model.item,
        parameters=model.parameters,
        trained_parameters=model.trained_parameters,
        step_s=played.step_s,
        model_flop=model.flop_per_sample() * recipe.global_batch,
        causal_flop=causal_flop_per_sample(model) * recipe.global_batch,
        hardware_flop=_hardware_flop(played.ranks, lowered),
        peak_flop_per_s=cluster.accelerator.peak_flop_per_s[lowered.numbers.product_dtype] * plan.ranks,
        energy=energy,
        power=step_power(cluster, played.ranks, job.segments, energy, played.step_s),
        clock_hz=mean_clock_hz(played.ranks, job.segments),
        grid=cluster.facility.grid,
        cost_usd=node_hours * cluster.node.usd_per_hour,
        electricity_usd=kwh * cluster.facility.usd_per_kwh,
        co2_g=kwh * cluster.facility.co2_g_per_kwh,
        memory=stage_memory(placement, lowered.states, played.ranks, software),
        breakdown=breakdown(played.ranks, job.segments),
        hidden=hidden(played.ranks, job.segments),
        assumed=assumed,
        detail=detail,
        replay=partial(timeline, lowered),
    )


def causal_flop_per_sample(model: Model) -> float:
    """Return forward + backward model FLOPs of one sample without the masked half of causal attention."""
    layout = Layout(micro_batch=1, flash=True)
    total = model.flop_per_sample()
    for block, copies in model.blocks():
        for op in block.ops:
            for kernel in (*op.forward(layout), *op.backward(layout)):
                if kernel.kind == KernelKind.ATTENTION and kernel.attention is not None and kernel.attention.causal:
                    total -= copies * kernel.model_flop / 2
    return total


def _hardware_flop(ranks: Sequence[Rank], lowered: Lowered) -> float:
    total = 0.0
    for rank in ranks:
        done = sum(segment.flop * count for segment, count in zip(lowered.job.segments, rank.counts, strict=True) if count)
        total += done * rank.program.multiplicity
    return total


def _assumed(model: Model, cluster: Cluster, software: Software, plan: Plan) -> tuple[str, ...]:
    idle = cluster.accelerators - plan.ranks
    spare = (f"the other {idle} accelerators of the cluster are not counted",) if idle else ()
    parts = (("model", model.assumed), ("cluster", cluster.assumed), ("software", software.assumed))
    return spare + tuple(f"{name}: {field}" for name, fields in parts for field in fields)
