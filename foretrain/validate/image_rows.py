"""From a row of image-model runs on one accelerator to the job that is simulated, or the reason why not."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from foretrain.errors import ForetrainError
from foretrain.models.architectures import build_model
from foretrain.models.model import Model
from foretrain.models.timm_name import timm_model
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.validate.cells import Row, needed, number, text, whole
from foretrain.validate.classic_machines import cluster_of
from foretrain.validate.classic_rows import MS, precision_of
from foretrain.validate.classic_stacks import laid_out, software_of
from foretrain.validate.labels import Labels
from foretrain.validate.llm_rows import Job, Library, Measured, Refusal

_KEY = ("model", "library", "accelerator", "n_accelerators", "precision", "memory_format", "framework", "batch", "image_size")


RENAMED = {
    "densenet264d_iabn": "densenet264d", "resnetv2_50d_evob": "resnetv2_50d_evos", "convnext_nano_hnf": "convnext_nano",
    "gluon_xception65": "xception65", "regnety_040s_gn": "regnety_040_sgn",
}  # fmt: skip
"""Architectures of timm 0.6 that 1.0 knows by another name, or no longer, by the nearest that it has."""


def job_key(row: Row) -> tuple[str, ...]:
    """Return what two rows share that ask the same of the simulator."""
    return tuple(text(row, column) for column in _KEY)


def measured(row: Row) -> Measured:
    """Return the step time of a row.

    Raises:
        ProfileError: where it is no number above zero.
    """
    step_ms = number(row, "step_time_ms")
    return Measured(step_time_s=None if step_ms is None else step_ms * MS, memory_bytes=None)


def labels_of(row: Row) -> Labels:
    """Return the names of a row in reports; its source is the library of its model, its layout the memory format."""
    name = "|".join(text(row, column) for column in ("model", "memory_format", "batch", "image_size"))
    return Labels(
        id=name, source=text(row, "library") or "timm", accelerator=text(row, "accelerator"), framework=text(row, "framework"),
        layout=text(row, "memory_format"), config_key=name,
    )  # fmt: skip


def job_of(row: Row, library: Library) -> Job | Refusal:
    """Return the job that a row describes, or the reason why it cannot be simulated."""
    try:
        return _job(row, library)
    except ForetrainError as error:
        return Refusal(re.sub(r"\s+", " ", str(error)))


@lru_cache(maxsize=1024)
def _model(name: str, image_size: int | None) -> Model:
    """Return a traced architecture; rows of both memory formats share it."""
    return build_model(replace(timm_model(f"timm:{name}"), image_size=image_size))


def _job(row: Row, library: Library) -> Job:
    name = RENAMED.get(text(row, "model"), text(row, "model"))
    model = _model(name, whole(row, "image_size"))
    one = {**row, "n_accelerators": text(row, "n_accelerators") or "1", "n_nodes": "1"}
    cluster, said_of_cluster = cluster_of(one, library.cluster)
    precision, chip, said_of_precision = precision_of(text(row, "precision"), cluster.accelerator)
    ranks = whole(one, "n_accelerators") or 1
    batch = needed(row, "batch", "the batch")
    words = {"framework": f"{text(row, 'framework')} {text(row, 'library')}", "kind": "no input"}
    software, said_of_software = software_of(words, library.software)
    renamed = () if name == text(row, "model") else (f"{text(row, 'model')} taken as {name}",)
    return Job(
        model=model,
        cluster=replace(cluster, node=replace(cluster.node, accelerator=chip)),
        plan=Plan(dp=ranks, micro_batch=batch),
        recipe=Recipe(global_batch=ranks * batch, precision=precision, optimizer="momentum"),
        software=laid_out(software, text(row, "memory_format"), precision=precision),
        assumed=(*renamed, *said_of_cluster, *said_of_precision, *said_of_software),
    )
