"""The contract between a model and the machine: ops, and the kernels that an op becomes on one rank.

An `Op` knows its shape per sample and how tensor parallelism cuts it. Given a `Layout` it names the `Kernel`s that one rank runs
for one micro-batch, forward and backward, and the bytes it saves in between. What a kernel costs on a given accelerator is not
known here: that is `foretrain.sim.cost`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import TYPE_CHECKING, Literal

FP32_BYTES = 4.0
WIDE = " in 32 bits"
"""Ends the class of a memory-bound kernel that stays in fp32 where the compute dtype has 16 bits."""


class KernelKind(IntEnum):
    """What bounds a kernel, and so which cost model prices it."""

    GEMM = 0
    ATTENTION = 1
    STREAM = 2
    CONVOLUTION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one rank sees a model: degrees that cut tensors, micro-batch, element size in the compute dtype, what runs fused."""

    micro_batch: int
    tp: int = 1
    sequence_parallel: bool = False
    element_bytes: float = 2.0
    flash: bool = False
    fused: frozenset[str] = frozenset()
    cp: int = 1
    """Context-parallel ranks that share the rows of every sample."""
    ep: int = 1
    """Expert-parallel ranks that share the experts of every mixture."""
    expert_load: float = 1.0
    """Rows that the experts of one rank take over an even share of the routed ones."""

    def rows(self, tokens: int) -> int:
        """Return the rows of one micro-batch on one context-parallel rank, of `tokens` a sample."""
        return -(-self.micro_batch * tokens // self.cp)
    wide: frozenset[str] = frozenset()
    """Patterns that mixed precision leaves in fp32."""
    logit_kept_bytes: float = 4.0
    """What the loss keeps of a logit for backward."""
    logit_beside_bytes: float = 0.0
    """What it takes beside that at its peak."""

    def bytes_of(self, pattern: str) -> float:
        """Return the bytes of an element in the kernels of a pattern."""
        return FP32_BYTES if pattern in self.wide else self.element_bytes

    regathers: bool = True
    """Whether backward gathers the rows of a region's input again, which then rests shared."""

    @property
    def sequence_cut(self) -> int:
        """Ranks that share the rows of a tensor outside the tensor-parallel regions."""
        return self.tp if self.sequence_parallel else 1

    @property
    def input_cut(self) -> int:
        """Ranks that share the rows of what is kept of a tensor-parallel region's input."""
        return self.sequence_cut if self.regathers else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """`batch` products of (m, k) by (k, n)."""

    batch: int
    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedAttention:
    """Shape of one fused attention kernel call on one rank; `heads` counts those of every sample of the micro-batch."""

    heads: int
    queries: int
    keys: int
    head_dim: int
    causal: bool
    backward: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """One pass of a convolution on one rank, `samples` of it: the result, or the gradient of its data or of its weights.

    Channels count all groups; sizes and strides have one number per spatial dimension. `direction` says which tensor is made; the
    other shapes are those of the forward pass.
    """

    direction: Literal["forward", "data", "weight"]
    samples: int
    in_channels: int
    out_channels: int
    groups: int
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def flop(self) -> float:
        """FLOPs of a direct pass, equal in all three directions: 2 · samples · outputs · inputs per group · kernel."""
        return 2.0 * self.samples * prod(self.out_size) * self.out_channels * (self.in_channels // self.groups) * prod(self.kernel)

    @property
    def maps(self) -> int:
        """Elements of the two tensors of maps that a pass reads and writes."""
        return self.samples * (self.in_channels * prod(self.in_size) + self.out_channels * prod(self.out_size))

    @property
    def filters(self) -> int:
        """Elements of the filters."""
        return self.in_channels * self.out_channels // self.groups * prod(self.kernel)

    @property
    def gemm(self) -> Gemm:
        """The product of an implicit GEMM, one per group. **Source:** Chetlur et al., cuDNN, arXiv:1410.0759, section 3."""
        taps = prod(self.kernel)
        ins, outs = self.in_channels // self.groups, self.out_channels // self.groups
        rows_out = self.samples * prod(self.out_size)
        if self.direction == "forward":
            return Gemm(batch=self.groups, m=rows_out, n=outs, k=ins * taps)
        if self.direction == "weight":
            return Gemm(batch=self.groups, m=outs, n=ins * taps, k=rows_out)
        # Each input pixel meets only the taps that the stride brings over it, so that the FLOPs stay those of the forward pass.
        rows_in = self.samples * prod(self.in_size)
        return Gemm(batch=self.groups, m=rows_in, n=ins, k=max(1, round(outs * taps * rows_out / rows_in)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One launch on one rank for one micro-batch (or `launches` alike ones).

    `flop` counts what the hardware runs; `model_flop` what the model asks (no recompute inside the kernel, causal attention in
    full), which is what MFU counts. Both count matrix products, not the few vector operations of memory-bound kernels.
    `moved_bytes` is read plus written.
    """

    name: str
    kind: KernelKind
    flop: float
    model_flop: float
    moved_bytes: float
    launches: int = 1
    gemm: Gemm | None = None
    attention: FusedAttention | None = None
    convolution: Convolution | None = None
    weight_grad: bool = False
    """Makes a gradient of weights, which nothing else of the backward pass waits for."""
    scattered: bool = False
    """Reads or writes rows from all over the memory, which no fusion with another kernel spares."""
    dtype: str | None = None
    """Of its math, where that is not the compute dtype."""
    calls: int = 0
    """Ops that the host issues for it, where that is not one a launch (0)."""
    views: int = 0
    """Views and nodes of a graph that cost the host alone."""
    classes: tuple[tuple[str, float], ...] = ()
    """Shares of what it moves by class of op (norm, softmax, ...), where that is no elementwise one."""


class Op(ABC):
    """One kernel-sized piece of work of a model, in shapes per sample.

    Every subclass is a final frozen dataclass with at least `name`. `parameters` counts the whole op; `parameters_cut` says whether
    tensor parallelism divides them, `experts` to how many experts they belong, over which expert parallelism spreads them (0: to none);
    frozen ones are not `trained`: they have no gradient and no optimizer state. Those of a `sharded` op are spread over the
    data-parallel ranks for good and updated in backward. `group` marks the ops that selective recomputation runs again
    (`core_attention`). An `ordered` op joins the rows of a sample by other means than attention: context parallelism cannot cut it.
    """

    name: str
    group: str
    if TYPE_CHECKING:
        # Read-only to callers: a subclass may hold these as fields or work them out.
        @property
        def parameters(self) -> int: ...  # noqa: D102
        @property
        def parameters_cut(self) -> bool: ...  # noqa: D102
        @property
        def trained(self) -> bool: ...  # noqa: D102
        @property
        def sharded(self) -> bool: ...  # noqa: D102
        @property
        def experts(self) -> int: ...  # noqa: D102
        @property
        def ordered(self) -> bool: ...  # noqa: D102
    else:
        trained = True
        sharded = False
        experts = 0
        ordered = False

    @abstractmethod
    def forward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the kernels of one micro-batch's forward pass on one rank."""

    @abstractmethod
    def backward(self, layout: Layout) -> tuple[Kernel, ...]:
        """Return the kernels of one micro-batch's backward pass on one rank, gradients of data first, then of weights."""

    @abstractmethod
    def saved_bytes(self, layout: Layout) -> float:
        """Return the bytes that one micro-batch keeps on one rank from forward to backward for this op."""

    def beside_bytes(self, layout: Layout) -> float:
        """Return the bytes that backward holds beside what forward has saved, on one rank for one micro-batch."""
        return 0.0

    def parameters_per_rank(self, tp: int, ep: int = 1) -> float:
        """Return the parameters that one of `tp` tensor-parallel and `ep` expert-parallel ranks holds."""
        held = self.parameters / tp if self.parameters_cut else float(self.parameters)
        return held / ep if self.experts else held


class Weightless(Op):
    """An op without parameters of its own."""

    @property
    def parameters(self) -> int:
        """None."""
        return 0

    @property
    def parameters_cut(self) -> bool:
        """Whether tensor parallelism divides the parameters, of which there are none."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """Where activations enter or leave a tensor-parallel region, free when tp = 1, or change hands among replicas, free when dp = 1.

    `enter` is Megatron's f: forward nothing, backward all-reduce (with sequence parallelism: all-gather, reduce-scatter).
    `leave` is g: forward all-reduce, backward nothing (with sequence parallelism: reduce-scatter, all-gather).
    `exchange` swaps what each rank has for what it needs, there and back: an all-to-all in both directions, among the data-parallel
    replicas or, free when ep = 1, the ranks that share the experts (`among`). `beside` is what the names of the ops begin with that it can
    run beside.
    `loss` is the vocabulary-parallel loss: three small all-reduces of `elements` fp32 numbers each, forward only (maximum, target
    logit, sum of exponentials).
    Source: Narayanan et al., arXiv:2104.04473, section 2.3; Korthikanti et al., arXiv:2205.05198, section 4.2.2.
    """

    name: str
    kind: str
    elements: int
    """Per sample, of the whole tensor."""
    among: str = "replicas"
    beside: str = ""
    gradient: bool = True
    """Whether one comes back through it; not where nothing before it is trained."""
