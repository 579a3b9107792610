"""From a row of published language-model runs to the job that is simulated, or to the reason why it cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from foretrain.errors import ForetrainError, RecipeError
from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Model
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.interleaved import InterleavedOneForwardOneBackward
from foretrain.sim.schedules.one_f_one_b import OneForwardOneBackward
from foretrain.software.profile import Software
from foretrain.validate import layouts
from foretrain.validate.cells import Row, needed, number, text
from foretrain.validate.links import parse_link
from foretrain.validate.llm_model import model_of
from foretrain.validate.machines import cluster_of, is_tpu
from foretrain.validate.stacks import profile_name, software_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one row asks the simulator, and what had to be assumed for it."""

    model: Model
    cluster: Cluster
    plan: Plan
    recipe: Recipe
    software: Software
    assumed: tuple[str, ...]
    steps: float = 1.0
    """How many of the simulated steps make the step that the row measured."""
    without: tuple[str, ...] = ()
    """Classes of the breakdown that the row's time leaves out."""
    reserved: bool = False
    """Whether its memory is what the allocator reserved, not all that the device holds."""


RESERVED = r"torchtitan"
"""Frameworks whose logs print what the allocator reserved (torchtitan, `components/metrics.py`: `max_reserved`); the others' memory
is taken as what the device holds, as nvidia-smi shows it."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row cannot be simulated."""

    reason: str


@dataclass(frozen=True, slots=True)
class Library:
    """Where profiles come from: a node as a cluster of one, and a software profile, each by name."""

    cluster: Callable[[str], Cluster]
    software: Callable[[str], Software]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a row measured, in SI units; None where it did not."""

    step_time_s: float | None
    memory_bytes: float | None


_KEY_IGNORES = frozenset({
    "id", "source", "source_key", "source_url_or_repo", "measured_step_time_s", "step_time_derived", "measured_tokens_per_s_per_accel",
    "measured_tflops_per_accel", "mfu_pct", "measured_memory_GB", "measured_power_or_energy", "complete", "subset", "assumed_fields",
    "config_key",
})  # fmt: skip


def job_key(row: Row) -> tuple[tuple[str, str], ...]:
    """Return what two rows share that ask the same of the simulator: all cells but names and measurements."""
    return tuple(sorted((column, cell.strip()) for column, cell in row.items() if column not in _KEY_IGNORES))


def measured(row: Row) -> Measured:
    """Return what a row measured; a step time that it lacks follows from its tokens per second and accelerator.

    Raises:
        ProfileError: where a measurement is no number above zero.
    """
    step, rate, memory = (number(row, column) for column in (
        "measured_step_time_s", "measured_tokens_per_s_per_accel", "measured_memory_GB",
    ))  # fmt: skip
    parts = [number(row, column) for column in ("global_batch_seqs", "seq_len", "n_accelerators")]
    if step is None and rate is not None and all(parts):
        batch, length, accelerators = (part or 0.0 for part in parts)
        step = batch * length / (rate * accelerators)
    return Measured(step_time_s=step, memory_bytes=None if memory is None else memory * 1e9)


def job_of(row: Row, library: Library) -> Job | Refusal:
    """Return the job that a row describes, or the reason why it cannot be simulated."""
    try:
        return _job(row, library)
    except ForetrainError as error:
        return Refusal(str(error))


def _job(row: Row, library: Library) -> Job:
    recipe, said_of_recipe = _recipe(row)
    degrees = layouts.degrees(row)
    split = degrees.tp * degrees.pp > 1
    name = profile_name(row, tpu=is_tpu(row), model_parallel=split)
    model = model_of(row, pad_vocabulary=name.startswith(("megatron", "nemo")))
    cluster, said_of_cluster = cluster_of(row, library.cluster)
    plan, said_of_plan = _plan(row, degrees, model=model, cluster=cluster, recipe=recipe)
    software, said_of_software = software_of(row, tpu=is_tpu(row), model_parallel=split, load=library.software)
    assumed = (*said_of_cluster, *said_of_recipe, *said_of_plan, *said_of_software)
    return Job(
        model=model, cluster=cluster, plan=plan, recipe=recipe, software=software, assumed=assumed,
        reserved=re.search(RESERVED, text(row, "framework"), re.IGNORECASE) is not None,
    )  # fmt: skip


def _plan(row: Row, degrees: layouts.Degrees, *, model: Model, cluster: Cluster, recipe: Recipe) -> tuple[Plan, tuple[str, ...]]:
    dp, tp, pp = degrees.dp, degrees.tp, degrees.pp
    per_node = cluster.node.accelerators
    micro = layouts.micro_batch(row, dp=dp, n_accelerators=degrees.ranks, tpu=is_tpu(row))
    microbatches = layouts.accumulation(global_batch=recipe.global_batch, dp=dp, micro=micro)
    slices = parse_link(text(row, "inter_node_link"), accelerators=per_node).slices
    zero, shard, said_of_sharding = layouts.sharding(row, dp=degrees.copies, per_node=per_node, slices=slices)
    recompute, said_of_recompute = layouts.recomputation(row)
    vpp, said_of_chunks = layouts.pipeline_chunks(row, pp=pp, layers=model.depth, microbatches=microbatches)
    mode, said_of_mode = layouts.context_mode(row, degrees.cp)
    plan = Plan(
        dp=dp, tp=tp, pp=pp, cp=degrees.cp, cp_mode=mode, ep=degrees.ep,
        vpp=vpp, zero=zero, shard=shard, micro_batch=micro, recompute=recompute, offload=layouts.offload(row),
        sequence_parallel=text(row, "sequence_parallel") == "y" and tp > 1,
        schedule=InterleavedOneForwardOneBackward() if vpp > 1 else OneForwardOneBackward(),
    )  # fmt: skip
    return plan, (*said_of_sharding, *said_of_recompute, *said_of_chunks, *said_of_mode, *_unsaid(row, tp))


def _unsaid(row: Row, tp: int) -> tuple[str, ...]:
    if tp > 1 and not text(row, "sequence_parallel"):
        return ("no sequence parallelism: the source does not state it",)
    return ()


_PRECISIONS = (
    (r"int8", ""),
    (r"mxfp8", "mxfp8"),
    (r"nvfp4", "nvfp4"),
    (r"mxfp|fp4", ""),
    (r"delayed", "fp8-delayed"),
    (r"tensor-?wise", "fp8-tensorwise"),
    (r"row-?wise", "fp8-rowwise"),
    (r"\bte\b.*fp8|fp8.*\bTE\b", "fp8-delayed"),
    (r"fp8|float8", "fp8"),
    (r"bf16|bfloat16", "bf16"),
    (r"fp16|float16|\bhalf\b|\bamp\b", "fp16"),
    (r"tf32", "tf32"),
    (r"fp32|float32", "fp32"),
)
_OPTIMIZERS = ((r"\blamb\b", "lamb"), (r"adamw|lion", "adamw"), (r"adam", "adam"), (r"momentum", "momentum"), (r"\bsgd\b", "sgd"))


def _recipe(row: Row) -> tuple[Recipe, tuple[str, ...]]:
    optimizer, said = _optimizer(text(row, "optimizer"))
    recipe = Recipe(
        global_batch=needed(row, "global_batch_seqs", "the global batch"),
        seq_len=needed(row, "seq_len", "the sequence length"),
        precision=_precision(text(row, "precision")),
        optimizer=optimizer,
    )
    return recipe, said


def _precision(words: str) -> str:
    if not words:
        raise RecipeError("precision is not given")
    for pattern, name in _PRECISIONS:
        if re.search(pattern, words, re.IGNORECASE):
            if not name:
                raise RecipeError(f"precision {words!r}: training in this format is not simulated in this release")
            return name
    raise RecipeError(f"precision {words!r} is unknown; fp32, tf32, fp16, bf16 or fp8 is expected")


def _optimizer(words: str) -> tuple[str, tuple[str, ...]]:
    for pattern, name in _OPTIMIZERS:
        if re.search(pattern, words, re.IGNORECASE):
            return name, ()
    return "adamw", (f"optimizer {words!r} taken as AdamW" if words else "AdamW: the source does not state the optimizer",)
