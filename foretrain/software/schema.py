"""The shape of a software profile: what a YAML file must and may hold. Keys are field names without their unit."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from foretrain.fields import words_of
from foretrain.quantity import Number, ProfileFile, Strict, one_of

Pattern = one_of(*words_of("fused"))
KernelName = one_of(*words_of("attention"))


class StateFile(Strict):
    """See `TrainingState`."""

    parameter_bytes: Number
    gradient_bytes: Number
    master_bytes: Number
    gather_bytes: Number
    reduce_bytes: Number
    working_gradient_bytes: Number = 0.0
    main_gradient_bytes: Number = 0.0


class LossFile(Strict):
    """See `LossMemory`."""

    kept_bytes: Number
    beside_bytes: Number
    cut_beside_bytes: Number


class OverlapFile(Strict):
    """See `Overlap`."""

    gradient_reduce: bool
    parameter_gather: bool
    pipeline: bool
    tensor_backward: bool
    tensor_pipelined: bool = False
    gradient_bucket_bytes: Number
    expert_exchange: bool = False
    table_exchange: bool = False
    first_bucket_bytes: Number = 0.0
    cycle_s: Number = 0.0
    copied_elements: Number = 0.0
    gather_copied: bool = False


class HostFile(Strict):
    """See `HostCost`."""

    launch_s: Number
    collective_s: Number
    launch_gap_s: Number
    blocking: bool
    step_s: Number
    microbatch_s: Number
    tensor_s: Number = 0.0
    view_s: Number = 0.0
    shard_s: Number = 0.0
    cut_s: Number = 0.0
    unit_s: Number = 0.0
    input_overlapped: bool = True
    loader_sample_s: Number = 0.0
    loader_workers: int = Field(default=1, ge=1)
    loader_overlapped: bool = True
    log_every: int = Field(default=1, ge=1)
    log_s: Number = 0.0


class SoftwareFile(ProfileFile):
    """See `Software`."""

    key: str = ""
    attention: dict[str, KernelName]  # type: ignore[valid-type]
    fused: list[Pattern]  # type: ignore[valid-type]
    state: StateFile
    state_fp16: StateFile | None = None
    loss: LossFile | None = None
    overlap: OverlapFile
    host: HostFile
    selective: one_of(*words_of("selective")) = "core_attention"  # type: ignore[valid-type]
    scatter_gather: bool
    outputs_held: bool = False
    matmul_scale: Number
    stream_scale: Number
    collective_scale: Number
    context_bytes: Number
    fragmentation: Number
    ends_together: bool = False
    buffers_sent: bool = False
    buckets_copied: bool = False
    adds_gradients: bool = False
    reduced_on_use: bool = False
    regathers: bool = True
    drops_gradients: bool = False
    channels_last: bool = False
    winograd: bool = True
    wide: list[Pattern] = Field(default_factory=list)  # type: ignore[valid-type]
    fp8_scaling: one_of(*words_of("fp8_scaling")) = "delayed"  # type: ignore[valid-type]
    fp8_gather: bool = False

    @model_validator(mode="after")
    def _some_kernel_for_every_accelerator(self) -> Self:
        if "default" not in self.attention:
            raise ValueError("attention names no kernel for `default`; add one, such as `default: flash2`")
        return self
