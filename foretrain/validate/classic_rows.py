"""From a row of classic runs (convolutional networks, BERT, recommenders) to the job that is simulated, or the reason why not."""

from __future__ import annotations

import re
from dataclasses import replace

from foretrain.errors import ForetrainError, PlanError, RecipeError
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Model
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.software.profile import Software
from foretrain.validate.cells import Row, needed, number, text, whole
from foretrain.validate.classic_machines import cluster_of
from foretrain.validate.classic_models import model_of
from foretrain.validate.classic_stacks import NO_UPDATE, TUNED, laid_out, software_of
from foretrain.validate.few_bits import FEW_BITS, SAID, in_few_bits
from foretrain.validate.labels import Labels
from foretrain.validate.llm_rows import Job, Library, Measured, Refusal

_KEY = (
    "set", "model", "dataset_input", "accelerator", "n_accelerators", "n_nodes", "node_type", "link", "framework", "precision",
    "batch_per_device", "grad_accum", "global_batch", "kind",
)  # fmt: skip
MS = 1e-3


def job_key(row: Row) -> tuple[str, ...]:
    """Return what two rows share that ask the same of the simulator."""
    return tuple(text(row, column) for column in _KEY)


def measured(row: Row) -> Measured:
    """Return the step time of a row; where it is missing it follows from throughput and global batch.

    Raises:
        ProfileError: where a measurement is no number above zero.
    """
    step_ms, rate, batch = (number(row, column) for column in ("step_time_ms_median", "throughput_median", "global_batch"))
    derived = batch / rate if rate and batch else None
    return Measured(step_time_s=derived if step_ms is None else step_ms * MS, memory_bytes=None)


def labels_of(row: Row) -> Labels:
    """Return the names of a row in reports; its source is the repository that published it."""
    source = re.split(r"[@:]", text(row, "source_example"))[0] or text(row, "set")
    accelerators = text(row, "n_accelerators")
    layout = "1 accelerator" if accelerators == "1" else f"dp, {text(row, 'n_nodes') or 1} node(s)"
    return Labels(
        id=text(row, "config_group") or "|".join(job_key(row)), source=source, accelerator=text(row, "accelerator"),
        framework=text(row, "framework"), layout=layout, config_key=text(row, "config_group"),
    )  # fmt: skip


def job_of(row: Row, library: Library) -> Job | Refusal:
    """Return the job that a row describes, or the reason why it cannot be simulated."""
    try:
        return _job(row, library)
    except ForetrainError as error:
        return Refusal(str(error))


def _job(row: Row, library: Library) -> Job:
    model, said_of_model = model_of(row)
    cluster, said_of_cluster = cluster_of(row, library.cluster)
    software, said_of_software = software_of(row, library.software)
    precision, chip, said_of_precision = _precision(row, model, cluster.accelerator, software)
    micro, accumulation, steps, said_of_batch = _batches(row)
    ranks = needed(row, "n_accelerators", "the number of accelerators")
    updates = not NO_UPDATE.search(text(row, "kind"))
    return Job(
        model=model,
        cluster=_with_chip(cluster, chip),
        plan=Plan(dp=ranks, micro_batch=micro),
        recipe=Recipe(global_batch=ranks * micro * accumulation, precision=precision, optimizer=_optimizer(row)),
        software=laid_out(software, text(row, "framework"), precision=precision),
        assumed=(*said_of_model, *said_of_cluster, *said_of_software, *said_of_precision, *said_of_batch),
        steps=steps,
        without=() if updates else ("optimizer",),
    )


def _with_chip(cluster: Cluster, chip: Accelerator) -> Cluster:
    return replace(cluster, node=replace(cluster.node, accelerator=chip))


def _optimizer(row: Row) -> str:
    """Return the optimizer that the recipes of the published scripts use: momentum for images, Adam or LAMB for BERT."""
    return "adamw" if re.search(r"BERT|GPT", text(row, "model")) else "sgd" if "DLRM" in text(row, "model") else "momentum"


def _precision(row: Row, model: Model, chip: Accelerator, software: Software) -> tuple[str, Accelerator, tuple[str, ...]]:
    words = text(row, "precision")
    if software.key == TUNED and FEW_BITS in words and in_few_bits(model, chip):
        return FEW_BITS, chip, (SAID,)
    return precision_of(words, chip)


def precision_of(words: str, chip: Accelerator) -> tuple[str, Accelerator, tuple[str, ...]]:
    """Return the precision that is simulated, the accelerator with its rates, and what had to be assumed.

    An accelerator without fast fp16 stores in 16 bits and computes in fp32, as cuDNN and neon do on it.

    Raises:
        RecipeError: where the words name no precision.
    """
    if re.search(r"tf32", words, re.IGNORECASE):
        if "tf32" in chip.peak_flop_per_s:
            return "tf32", chip, (f"precision {words!r} taken as TF32: the default of that time on this accelerator",) * ("?" in words)
        return "fp32", chip, (f"precision {words!r} is fp32 on {chip.name}",)
    if re.search(r"fp16|half|amp|mixed", words, re.IGNORECASE):
        said = (f"precision {words!r} taken as fp16",) * ("fp8" in words)
        return ("fp16", chip, said) if _fast_half(chip, words) else ("fp16", _storing_half(chip), ("fp16 storage, math in fp32",))
    if re.search(r"bf16", words, re.IGNORECASE):
        return "bf16", chip, ()
    if re.search(r"fp32", words, re.IGNORECASE):
        return "fp32", chip, ()
    raise RecipeError(f"precision {words!r} is unknown; fp32, tf32, fp16 or bf16 is expected")


def _fast_half(chip: Accelerator, words: str) -> bool:
    peak = chip.peak_flop_per_s
    return "storage" not in words and peak.get("fp16", 0.0) > peak["fp32"]


def _storing_half(chip: Accelerator) -> Accelerator:
    """Return the accelerator with the fp32 rate for fp16 storage."""
    sustained = {**chip.matmul.sustained, "fp16": chip.matmul.sustained["fp32"]}
    energy = {**chip.power.math_j_per_flop, "fp16": chip.power.math_j_per_flop.get("fp32", 0.0)}
    return replace(
        chip, peak_flop_per_s={**chip.peak_flop_per_s, "fp16": chip.peak_flop_per_s["fp32"]},
        matmul=replace(chip.matmul, sustained=sustained), power=replace(chip.power, math_j_per_flop=energy),
    )  # fmt: skip


def _batches(row: Row) -> tuple[int, int, float, tuple[str, ...]]:
    """Return micro-batch, accumulation, how many such steps make the row's, and what had to be assumed.

    Where batch × accelerators is the global batch, the accumulation cuts the batch. Where the product of all three is not the
    global batch, the throughput is that of the stated batch and accumulation, and the step as long as the global batch needs.

    Raises:
        PlanError: where the batch is not given.
        ProfileError: where a number is none.
    """
    ranks = needed(row, "n_accelerators", "the number of accelerators")
    batch, total = number(row, "batch_per_device"), number(row, "global_batch")
    accumulation = whole(row, "grad_accum") or 1
    if batch is None:
        if total is None:
            raise PlanError("the batch is not given (batch_per_device and global_batch are empty)")
        batch = total / (ranks * accumulation)
    micro = max(1, round(batch))
    if total is None or total == ranks * micro * accumulation:
        return micro, accumulation, 1.0, ()
    if total == ranks * micro and micro % accumulation == 0:
        return micro // accumulation, accumulation, 1.0, (f"batch of {micro} cut into {accumulation} micro-batches",)
    said = f"global batch {total:g} is not {micro} x {ranks} x {accumulation}: time scaled from that product to it"
    return micro, accumulation, total / (ranks * micro * accumulation), (said,)
