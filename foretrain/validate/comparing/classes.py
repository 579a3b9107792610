"""What a kernel or an op is: its group by its name, and its class of the breakdown by its group.

Names are those of ATen, of cuBLAS, cuDNN, CUTLASS and Triton, of NCCL and gloo, and of foretrain's own kernels.
"""

from __future__ import annotations

import functools
import re

from foretrain.sim.segment import HOST, MATH, MEMORY, OPTIMIZER

MATMUL, CONVOLUTION, ATTENTION, POINTWISE, COPY, REDUCTION = "matmul", "convolution", "attention", "pointwise", "copy", "reduction"
PRODUCTS = frozenset({MATMUL, CONVOLUTION, ATTENTION})

Table = tuple[tuple[str, str], ...]
"""Groups and what their names match, the first that does."""
_PRODUCTS: Table = (
    (ATTENTION, r"(flash|efficient|cudnn|flex)_attention|attention_(forward|backward|for_cpu)|flash|fmha|sdpa"),
    (CONVOLUTION, r"convolution|conv\d?d|depthwise|_conv\b|implicit_gemm|winograd|fprop|wgrad|dgrad"),
    (MATMUL, r"gemm|gemv|nvjet|cutlass|cublas|splitk|triton_tem|aten::_?(mm|bmm|addmm|addbmm|baddbmm|addmv|mv|dot|scaled_mm|grouped_mm)\b"
             r"|mkldnn_linear|mkl_linear|addmm_activation"),
)  # fmt: skip
_MEMORY_BOUND: Table = (
    ("loss", r"nll|cross_entropy|log_?softmax|loss|binary_cross"),
    ("softmax", r"softmax"),
    (REDUCTION, r"bias_grad|vector_norm|aten::norm\b|foreach_norm"),
    ("norm", r"norm(?!al)|\bbn_|gammabeta"),
    ("embedding", r"embedding|index_?select"),
    ("pooling", r"pool"),
    (COPY, r"memcpy|copy|catarray|aten::cat\b|\bcast"),
    (REDUCTION, r"reduce_kernel|\b(sum|mean|amax|amin|argmax|var|var_mean)\b"),
)
_COLLECTIVES: Table = (
    ("all_reduce", r"all_?reduce"), ("all_gather", r"all_?gather"), ("reduce_scatter", r"reduce_?scatter"),
    ("all_to_all", r"all_?to_?all"), ("broadcast", r"broadcast"), ("send", r"send"), ("recv", r"recv"),
    ("reduce", r"reduce"), ("gather", r"gather"), ("scatter", r"scatter"),
)  # fmt: skip
OTHER = "other collective"
OVERHEAD = re.compile(
    r"aten::(empty\w*|new_empty\w*|as_strided\w*|view|view_as|_unsafe_view|_reshape_alias|reshape|alias|t|numpy_T|transpose|permute"
    r"|movedim|expand|expand_as|broadcast_to|detach_?|slice|select|narrow|unbind|split|split_with_sizes|chunk|flatten|unflatten"
    r"|unsqueeze|squeeze|resolve_conj|resolve_neg|lift\w*|result_type|resize_|set_|item|is_nonzero|can_cast|record_stream"
    r"|_local_scalar_dense|_has_compatible_shallow_copy_type|scalar_tensor|randperm|randint|randn|rand|random_|normal_|uniform_"
    # What they call works under a name of its own.
    r"|linear|matmul|einsum|to|_to_copy|contiguous|clone|(zeros|ones|full)(_like)?|dropout|layer_norm|rms_norm|group_norm|instance_norm"
    r"|batch_norm|_batch_norm_impl_index|softmax|log_softmax|cross_entropy_loss|nll_loss|nll_loss_nd|conv[123]d|convolution|_convolution"
    r"|scaled_dot_product_attention|_scaled_dot_product_attention_math|max_pool[123]d|adaptive_avg_pool2d|embedding_backward)$"
)
"""Ops that make or describe a tensor, draw data, or only call others: what they take themselves is the host's overhead."""


@functools.lru_cache(maxsize=16384)
def op_group(name: str) -> str | None:
    """Return the group of an ATen op that works on data; None for what is `OVERHEAD` or no ATen op."""
    if not name.startswith("aten::") or OVERHEAD.match(name):
        return None
    return _matched(name.lower(), _PRODUCTS + _MEMORY_BOUND) or POINTWISE


@functools.lru_cache(maxsize=16384)
def kernel_group(name: str) -> str:
    """Return the group of a device's kernel by its own name."""
    lowered = name.lower()
    if lowered.startswith("triton_poi"):
        return POINTWISE  # its name lists everything that it fuses
    rest = REDUCTION if lowered.startswith(("triton_red", "triton_per")) else POINTWISE
    return _matched(lowered, _PRODUCTS + _MEMORY_BOUND) or rest


@functools.lru_cache(maxsize=16384)
def stream_group(name: str) -> str:
    """Return the group of a memory-bound kernel of foretrain's by its name."""
    return _matched(name.lower(), _MEMORY_BOUND) or POINTWISE


@functools.lru_cache(maxsize=4096)
def collective_of(name: str) -> str | None:
    """Return which collective or message a kernel of NCCL or RCCL, or work of gloo or MPI, is; None where it is none."""
    found = re.match(r"(?:gloo|nccl|mpi|ucc|xccl):(?P<work>\w+)|.*?nccl(?:Dev)?Kernel_?(?P<kernel>\w+)", name)
    return _matched((found["work"] or found["kernel"]).lower(), _COLLECTIVES) or OTHER if found else None


def class_of(group: str) -> str:
    """Return the class of the breakdown that a group of ops belongs to."""
    if group in PRODUCTS:
        return MATH
    return group if group in (OPTIMIZER, HOST) else MEMORY


def is_backward(name: str) -> bool:
    """Tell whether a kernel of foretrain's is of the backward pass, by its name."""
    return "grad" in name.rpartition(".")[2] or name.endswith("backward")


def _matched(name: str, table: Table) -> str | None:
    return next((group for group, pattern in table if re.search(pattern, name)), None)
