"""Scaling sweeps: the same job on more and more nodes, with the batch fixed (strong) or growing with the machine (weak)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from foretrain.errors import ForetrainError, UsageError, nearest
from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Model
from foretrain.sim.fill import fill
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.profile import Software

MODES = ("strong", "weak", "both")
COMMUNICATION = ("tensor_parallel", "context_parallel", "expert_parallel", "pipeline_parallel", "data_parallel")
CHUNK = 8
"""Points that travel to a worker together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSummary:
    """What a scaling plot shows of a prediction; small, so that it travels between processes."""

    dp: int
    step_s: float
    item: str
    """What training is counted in: token, image or sample."""
    items_per_s: float
    items_per_s_per_accelerator: float
    mfu: float
    hfu: float
    energy_per_item_j: float
    usd_per_item: float
    co2_per_item_g: float
    exposed_communication_s: float
    bubble_s: float
    peak_memory_bytes: float
    """Of the heaviest stage."""
    fits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPoint:
    """One node count. `summary` is None where the job cannot be placed there, and `reason` then says why."""

    mode: str
    nodes: int
    accelerators: int
    global_batch: int
    summary: StepSummary | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    mode: str
    nodes: int
    base_nodes: int
    cluster: Cluster
    model: Model
    plan: Plan
    recipe: Recipe
    software: Software | None
    seed: int


def scaling(  # noqa: PLR0913  # the arguments of simulate and what is swept
    model: Model,
    cluster_at: Callable[[int], Cluster],
    plan: Plan,
    recipe: Recipe,
    nodes: Sequence[int],
    mode: str = "strong",
    *,
    software: Software | None = None,
    seed: int = 0,
    executor: Executor | None = None,
) -> tuple[ScalingPoint, ...]:  # fmt: skip
    """Return one point per mode and node count, in that order; `dp` of `plan` follows from the machine.

    `recipe.global_batch` is the batch at every node count (strong), or at the smallest and in proportion beyond (weak).
    Points run in this process, or in chunks on `executor`.

    Raises:
        UsageError: where `mode` is unknown or `nodes` holds no count.
    """
    if mode not in MODES:
        raise UsageError(f"mode {mode!r} is unknown; use one of {', '.join(MODES)}{nearest(mode, MODES)}")
    counts = sorted(set(nodes))
    if not counts or counts[0] < 1:
        raise UsageError(f"node counts {list(nodes)} are not counts; give whole numbers from 1, such as 1,2,4,8")
    tasks = [
        _Task(
            mode=one, nodes=count, base_nodes=counts[0], cluster=cluster_at(count),
            model=model, plan=plan, recipe=recipe, software=software, seed=seed,
        )
        for one in (("strong", "weak") if mode == "both" else (mode,))
        for count in counts
    ]
    chunks = [tasks[first : first + CHUNK] for first in range(0, len(tasks), CHUNK)]
    results = map(_chunk, chunks) if executor is None else executor.map(_chunk, chunks)
    return tuple(point for points in results for point in points)


def efficiency(points: Sequence[ScalingPoint]) -> Iterator[float | None]:
    """Yield each point's rate per accelerator over that of the smallest placed node count of its mode; None where not placed.

    For strong scaling this is t1·n1 / (t·n), for weak scaling t1 / t.
    """
    base: dict[str, tuple[int, float]] = {}
    for point in points:
        if point.summary and (point.mode not in base or point.nodes < base[point.mode][0]):
            base[point.mode] = (point.nodes, point.summary.items_per_s_per_accelerator)
    for point in points:
        yield point.summary.items_per_s_per_accelerator / base[point.mode][1] if point.summary else None


def summarise(prediction: Prediction) -> StepSummary:
    """Return what a scaling plot shows of a prediction."""
    return StepSummary(
        dp=prediction.plan.dp,
        step_s=prediction.step_s,
        item=prediction.item,
        items_per_s=prediction.items / prediction.step_s,
        items_per_s_per_accelerator=prediction.items_per_s_per_accelerator,
        mfu=prediction.mfu,
        hfu=prediction.hfu,
        energy_per_item_j=prediction.energy_j / prediction.items,
        usd_per_item=prediction.cost_usd / prediction.items,
        co2_per_item_g=prediction.co2_g / prediction.items,
        exposed_communication_s=sum(prediction.breakdown.get(kind, 0.0) for kind in COMMUNICATION),
        bubble_s=prediction.breakdown.get("bubble", 0.0),
        peak_memory_bytes=max(prediction.peak_memory_bytes),
        fits=prediction.fits,
    )


def _chunk(tasks: list[_Task]) -> list[ScalingPoint]:
    return [_point(task) for task in tasks]


def _point(task: _Task) -> ScalingPoint:
    growth = task.nodes if task.mode == "weak" else task.base_nodes
    batch, left = divmod(task.recipe.global_batch * growth, task.base_nodes)
    summary, reason = None, f"a batch of {task.recipe.global_batch} at {task.base_nodes} nodes is no whole number at {task.nodes}"
    if not left:
        try:
            summary, reason = summarise(_predict(task, batch)), ""
        except ForetrainError as error:
            reason = " ".join(str(error).split())
    return ScalingPoint(
        mode=task.mode, nodes=task.nodes, accelerators=task.cluster.accelerators, global_batch=batch, summary=summary, reason=reason
    )


def _predict(task: _Task, batch: int) -> Prediction:
    plan = fill(task.plan, task.cluster)
    return simulate(task.model, task.cluster, plan, replace(task.recipe, global_batch=batch), software=task.software, seed=task.seed)
