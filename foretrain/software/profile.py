"""What a framework does with a machine: kernels it calls, what it fuses, what a launch costs, what it overlaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Bytes per parameter that a framework keeps and moves, in mixed precision."""

    parameter_bytes: float
    """Resident copy in the compute dtype (0 where only the sharded master copy stays)."""
    gradient_bytes: float
    """Gradient accumulator."""
    master_bytes: float
    """Master copy that the optimizer updates (0 where the resident copy is the master)."""
    gather_bytes: float
    """Parameter on the wire when it is all-gathered."""
    reduce_bytes: float
    """Gradient on the wire when it is reduced."""
    working_gradient_bytes: float = 0.0
    """Gradient that backward made, where it stays beside the accumulator."""
    main_gradient_bytes: float = 0.0
    """Copy of the gradient in fp32 that the update of a master copy reads, where the accumulator has 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossMemory:
    """Bytes that the loss takes for each logit that a rank holds."""

    kept_bytes: float = 4.0
    """From forward to backward: the fp32 softmax, or the logits themselves where a kernel makes it again."""
    beside_bytes: float = 0.0
    """Beside it at the peak of the loss, gradients of the logits included, in blocks as the allocator can share them."""
    cut_beside_bytes: float = 0.0
    """The same where the vocabulary is cut over tensor-parallel ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Which communication a framework hides behind compute."""

    gradient_reduce: bool
    parameter_gather: bool
    pipeline: bool
    tensor_backward: bool
    """Backward tensor-parallel collectives run beside the weight-gradient product."""
    tensor_pipelined: bool
    """With sequence parallelism, gathers and scatters are cut into tp chunks that run beside the product they feed or drain."""
    gradient_bucket_bytes: float
    expert_exchange: bool = False
    """Tokens travel to the experts and back beside the products of the experts that every token sees (shared experts)."""
    table_exchange: bool = False
    """Vectors of a recommender's tables travel beside the products of its dense features."""
    cycle_s: float = 0.0
    """Time that a full bucket waits until the ranks have agreed to reduce it (Horovod's cycle)."""
    first_bucket_bytes: float = 0.0
    """Of the first bucket that backward fills (0: as the others); PyTorch's DDP reduces a small one early."""
    copied_elements: float = 0.0
    """Gradients that are copied side by side to be reduced at a time (0: they lie so already)."""
    gather_copied: bool = False
    """Sharded parameters are gathered into a buffer of their own, in blocks that no kernel shares, and copied out of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCost:
    """Time of the host, per launch and per step."""

    launch_s: float
    """Host time to issue one kernel."""
    collective_s: float
    """Host time to issue one collective inside a pass: a launch, its bookkeeping and stream waits."""
    launch_gap_s: float
    """Device idle between two dependent kernels even when the host is ahead."""
    blocking: bool
    """The host waits for each kernel before it issues the next (CUDA_LAUNCH_BLOCKING=1)."""
    step_s: float
    """Per optimizer step: data loading that is not hidden, logging and synchronisation."""
    microbatch_s: float
    """Per micro-batch and stage: schedule bookkeeping, pipeline synchronisation."""
    tensor_s: float = 0.0
    """Per trained tensor and operation of an optimizer: of one that takes lists of tensors what gathering them, counting steps and dropping
    gradients takes; of one that loops over them a launch, which joins no graph (0: as any launch)."""
    shard_s: float = 0.0
    """Added to each launch of an optimizer that loops over tensors which are shards of larger ones (DTensor)."""
    cut_s: float = 0.0
    """Added to an op where its tensors are cut by tensor parallelism and the framework works out their layouts (torch's DTensor)."""
    unit_s: float = 0.0
    """For a unit whose parameters are sharded, in each direction: hooks, copies into and out of flat buffers (FSDP)."""
    view_s: float = 0.0
    """For a view of a tensor, or a node of autograd's graph that runs no kernel."""
    input_overlapped: bool = True
    """Samples are copied to the device behind the passes before (pinned memory, a loader that is ahead); else each forward waits."""
    loader_sample_s: float = 0.0
    """Time of one worker of the data loader to make a sample ready (0: the loader is never waited for)."""
    loader_workers: int = 1
    """Workers of a node."""
    loader_overlapped: bool = True
    """Workers make the samples of the next step ready beside this one; else each micro-batch waits for its own."""
    log_every: int = 1
    """Steps from one in which the host reads the loss to the next: it then waits for the device, and loses its lead."""
    log_s: float = 0.0
    """Time of the host to gather and write what it has read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """One framework at one release range. Constants that came from a fit carry its name as their source."""

    name: str
    key: str
    attention: Mapping[str, str]
    """Attention kernel per accelerator vendor generation key (`default` for the rest): unfused, flash1, flash2, flash3, xla."""
    fused: frozenset[str]
    """Patterns run as one kernel: bias_gelu, swiglu, bias_dropout_add, norm, softmax, cross_entropy, rotary, pointwise (any chain),
    batch_norm_relu, batch_norm_add_relu, add_relu, interaction (of a recommender), optimizer (or optimizer_lists: a kernel an operation,
    over lists of tensors)."""
    state: TrainingState
    overlap: Overlap
    host: HostCost
    selective: str
    """What selective recomputation runs again: `core_attention` (Megatron-LM), `alternate_products` (all but attention and every
    other product, torchtitan's per-op policy), `alternate_products_read` (the same, where a compiler keeps no product that backward does
    not read) or `all_but_products` (JAX's dots_saveable)."""
    scatter_gather: bool
    """Pipeline sends carry 1/tp of the tensor each and the receiver gathers it (Megatron-LM)."""
    matmul_scale: float
    """Rate of this framework's matrix products relative to the accelerator's own curve."""
    stream_scale: float
    """Rate of its memory-bound kernels relative to the accelerator's own curve."""
    collective_scale: float
    """Rate of its collectives relative to the fabric's own curve."""
    context_bytes: float
    """Device memory outside the allocator: context, communicators, workspaces."""
    fragmentation: float
    """Share of allocated memory that the allocator reserves beyond it."""
    ends_together: bool = False
    """Where parameters rest sharded, those of the model's ends are one unit, whole from before the first layer until backward is done
    (the root of PyTorch's FSDP)."""
    buffers_sent: bool = False
    """Replicas take over the first one's buffers, such as running statistics, before a forward pass (PyTorch's DDP)."""
    buckets_copied: bool = False
    """Replicas copy gradients into the buckets that they reduce (PyTorch's DDP)."""
    adds_gradients: bool = False
    """Gradients of a micro-batch are added to those before it by kernels of their own (autograd), not by the products (Megatron-LM)."""
    reduced_on_use: bool = False
    """With sequence parallelism, gradients of norms are reduced by each operator of the optimizer that reads them, tensor by tensor
    (PyTorch's DTensor), not once in a buffer (Megatron-LM)."""
    regathers: bool = True
    """With sequence parallelism, backward gathers the inputs of layers again rather than keep them whole (Megatron-LM)."""
    drops_gradients: bool = False
    """Gradients are dropped after a step, not filled with zeros (torch's zero_grad since release 2.0)."""
    channels_last: bool = False
    """Maps lie in memory with the channels of a pixel side by side (NHWC), as matrix units take them."""
    fp8_scaling: str = "delayed"
    """What training in fp8 means: `delayed` or `block` (Transformer Engine), `tensorwise` or `rowwise` (torchao)."""
    fp8_gather: bool = False
    """Sharded parameters are cast to fp8 before they are gathered, where their scales are per tensor (torchtitan)."""
    winograd: bool = True
    """Its library has Winograd's algorithm for convolutions (cuDNN 5 and later)."""
    state_fp16: TrainingState | None = None
    """What it keeps and moves in fp16, where that differs from bf16."""
    loss: LossMemory = LossMemory()
    outputs_held: bool = False
    """A pipeline stage holds the result that it has sent until it has run backward."""
    wide: frozenset[str] = frozenset()
    """Patterns of `fused` that mixed precision leaves in fp32, whether they run as one kernel or several."""
    assumed: tuple[str, ...] = ()

    @property
    def loops_over_tensors(self) -> bool:
        """Whether the optimizer runs each operation on each tensor by itself."""
        return not {"optimizer", "optimizer_lists"} & self.fused

    def cut(self, tp: int, *, sharded: bool = False) -> Software:
        """Return the software as it issues ops whose tensors lie on `tp` ranks, and updates of parameters that are shards."""
        host = self.host
        launch_s = host.launch_s + (host.cut_s if tp > 1 else 0.0)
        tensor_s = host.tensor_s + (host.shard_s if tp > 1 or sharded else 0.0)
        if (launch_s, tensor_s) == (host.launch_s, host.tensor_s):
            return self
        return replace(self, host=replace(host, launch_s=launch_s, tensor_s=tensor_s))
