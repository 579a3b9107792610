"""The constants that are fitted to published steps: where each sits, what the data sheet or a microbenchmark says, how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foretrain.hardware.accelerator import Accelerator
from foretrain.software.profile import Software
from foretrain.validate.llm_rows import Job

HOST = ("launch_s", "collective_s", "step_s", "microbatch_s")
FITTED_DTYPES = ("tf32", "fp16", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One constant of one accelerator (by the prefix of its key) or of software profiles (by their keys, space between).

    `centre` is the value before any step is looked at, `width` the standard deviation of the logarithm of value over centre.
    An attention kernel has two centres, forward and backward, and one factor.
    """

    owner: str
    field: str
    centre: tuple[float, ...]
    width: float

    def value(self, log_factor: float) -> tuple[float, ...]:
        """Return the constant at a factor."""
        return tuple(value * math.exp(log_factor) for value in self.centre)


CONSTANTS = (
    Constant(owner="a100", field="sustained", centre=(0.84,), width=0.06),
    Constant(owner="h100-sxm", field="sustained", centre=(0.72,), width=0.15),
    Constant(owner="h100-sxm-96gb", field="sustained", centre=(0.64,), width=0.10),
    Constant(owner="a100", field="flash1", centre=(0.45, 0.33), width=0.2),
    Constant(owner="a100", field="flash2", centre=(0.70, 0.58), width=0.15),
    Constant(owner="h100", field="flash1", centre=(0.25, 0.20), width=0.4),
    Constant(owner="h100", field="flash2", centre=(0.40, 0.35), width=0.15),
    Constant(owner="tpu-v4", field="sustained", centre=(0.90,), width=0.1),
    Constant(owner="tpu-v5e", field="sustained", centre=(0.90,), width=0.1),
    Constant(owner="tpu-v5p", field="sustained", centre=(0.90,), width=0.1),
    Constant(owner="tpu", field="xla", centre=(0.55, 0.48), width=0.2),
    Constant(owner="megatron-deepspeed", field="matmul_scale", centre=(1.0,), width=0.06),
    Constant(owner="megatron-deepspeed", field="stream_scale", centre=(0.95,), width=0.15),
    Constant(owner="megatron-deepspeed", field="collective_scale", centre=(1.0,), width=0.25),
    Constant(owner="megatron-deepspeed megatron-deepspeed-blocking", field="launch_s", centre=(20e-6,), width=1.0),
    Constant(owner="megatron-deepspeed megatron-deepspeed-blocking", field="collective_s", centre=(60e-6,), width=0.7),
    Constant(owner="megatron-deepspeed megatron-deepspeed-blocking", field="step_s", centre=(10e-3,), width=0.7),
    Constant(owner="megatron-deepspeed megatron-deepspeed-blocking", field="microbatch_s", centre=(1e-3,), width=0.7),
    Constant(owner="megatron-deepspeed-blocking", field="matmul_scale", centre=(1.0,), width=0.06),
    Constant(owner="megatron-deepspeed-blocking", field="collective_scale", centre=(1.0,), width=0.25),
    Constant(owner="composer-fsdp", field="matmul_scale", centre=(1.0,), width=0.06),
    Constant(owner="composer-fsdp", field="stream_scale", centre=(0.95,), width=0.3),
    Constant(owner="composer-fsdp", field="collective_scale", centre=(1.0,), width=0.4),
    Constant(owner="internevo", field="matmul_scale", centre=(1.0,), width=0.06),
    Constant(owner="internevo", field="stream_scale", centre=(0.95,), width=0.4),
    Constant(owner="internevo", field="collective_scale", centre=(1.0,), width=0.5),
    Constant(owner="pytorch-fsdp pytorch-fsdp-compiled", field="matmul_scale", centre=(1.0,), width=0.06),
    Constant(owner="pytorch-fsdp", field="stream_scale", centre=(0.95,), width=0.3),
    Constant(owner="torchtitan torchtitan-compiled", field="matmul_scale", centre=(1.0,), width=0.06),
    Constant(owner="torchtitan", field="stream_scale", centre=(0.95,), width=0.3),
    Constant(owner="flash-attn-repo", field="matmul_scale", centre=(1.0,), width=0.06),
    Constant(owner="deepspeed-zero3", field="collective_scale", centre=(0.3,), width=1.0),
    Constant(owner="xla-gpu", field="matmul_scale", centre=(1.0,), width=0.06),
    Constant(owner="xla-gpu", field="collective_scale", centre=(1.0,), width=0.5),
)


def changed(job: Job, logs: Sequence[float]) -> Job:
    """Return the job with every constant that applies to it at its factor; `logs` follows CONSTANTS."""
    software, accelerator = job.software, job.cluster.accelerator
    for constant, log_factor in zip(CONSTANTS, logs, strict=True):
        if software.key in constant.owner.split():
            software = _software(software, constant.field, constant.value(log_factor)[0])
        elif _owns(constant.owner, accelerator.key):
            accelerator = _accelerator(accelerator, constant.field, constant.value(log_factor))
    node = replace(job.cluster.node, accelerator=accelerator)
    return replace(job, software=software, cluster=replace(job.cluster, node=node))


def touched(job: Job) -> frozenset[int]:
    """Return the numbers of the constants that a job depends on."""
    accelerator = job.cluster.accelerator
    return frozenset(
        index for index, constant in enumerate(CONSTANTS)
        if job.software.key in constant.owner.split()
        or (_owns(constant.owner, accelerator.key) and (constant.field == "sustained" or constant.field in accelerator.attention))
    )  # fmt: skip


def _owns(owner: str, key: str) -> bool:
    """Say whether an accelerator's constant is meant: by prefix, except that the 96 GB H100 has a sustained rate of its own."""
    return key.startswith(owner) and not (owner == "h100-sxm" and key != owner)


def _software(software: Software, field: str, value: float) -> Software:
    changes: Mapping[str, Any] = {field: value}
    if field in HOST:
        return replace(software, host=replace(software.host, **changes))
    return replace(software, **changes)


def _accelerator(accelerator: Accelerator, field: str, value: tuple[float, ...]) -> Accelerator:
    if field == "sustained":
        held = dict(accelerator.matmul.sustained)
        held |= {dtype: value[0] for dtype in FITTED_DTYPES if dtype in held}
        return replace(accelerator, matmul=replace(accelerator.matmul, sustained=held))
    if field not in accelerator.attention:
        return accelerator
    curve = replace(accelerator.attention[field], forward=value[0], backward=value[1])
    return replace(accelerator, attention={**accelerator.attention, field: curve})
