"""What is known of the ops of a traced module, by their names in aten: what they are, and how often they go over their data.

Everything that is no matrix product moves bytes: it reads its tensors and writes its results once, but for those listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

PRODUCTS = MappingProxyType({
    "mm": (0, 1, None), "addmm": (1, 2, 0), "bmm": (0, 1, None), "baddbmm": (1, 2, 0),
    "mv": (0, 1, None), "addmv": (1, 2, 0), "dot": (0, 1, None), "vdot": (0, 1, None),
})  # fmt: skip
"""Positions of the operands, and of what is added."""
CONVOLUTION = "convolution"
CONVOLUTION_BACKWARD = "convolution_backward"

_MATRIX_WORDS = frozenset({
    "mm", "bmm", "addmm", "addbmm", "baddbmm", "matmul", "attention", "conv", "conv1d", "conv2d", "conv3d", "convolution", "linalg", "lstm",
    "gru", "rnn", "bilinear", "trilinear", "cdist", "einsum", "tensordot", "cholesky", "qr", "svd", "triangular", "inverse", "householder",
    "ormqr", "geqrf", "eig", "eigh", "fft", "flash", "ctc", "mv", "addmv", "ger", "lu", "linear",
})  # fmt: skip
_POINTWISE_NAMES = ("upsample_", "_upsample_", "fft_")
"""Beginnings of names with such a word that interpolate or only permute."""

_NO_MATRIX = frozenset({"linalg_vector_norm", "linalg_cross"})

VIEWS = frozenset({"_unsafe_view", "_reshape_alias", "lift_fresh", "detach", "alias", "real", "view_as_real", "view_as_complex"})
"""Ops that make a new tensor over the same data, beside those whose schema says so: they cost nothing."""
EMPTY = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted", "resize", "set"})
"""Ops that reserve memory and touch none of it."""

SAME = frozenset({"detach", "lift_fresh", "alias"})
"""Views of the whole tensor, which torch takes at its own discretion."""

READS = MappingProxyType({
    # Statistics first, then the values are normalised: the data is read twice, and backward once for the sums and once for the result.
    "native_batch_norm": 2, "_native_batch_norm_legit": 2, "_native_batch_norm_legit_functional": 2, "cudnn_batch_norm": 2,
    "native_batch_norm_backward": 2, "native_group_norm": 2, "native_group_norm_backward": 2, "native_layer_norm_backward": 2,
    "_fused_rms_norm_backward": 2,
})  # fmt: skip
"""Times that an op reads its inputs, where that is not once."""
LAUNCHES = MappingProxyType({
    "native_batch_norm": 2, "_native_batch_norm_legit": 2, "_native_batch_norm_legit_functional": 2, "native_batch_norm_backward": 2,
    "native_group_norm": 3, "native_group_norm_backward": 3, "native_layer_norm_backward": 2, "_fused_rms_norm_backward": 2,
    "embedding_dense_backward": 2, "index_put": 3, "sort": 4, "topk": 2, "cumsum": 1,
})  # fmt: skip
"""Kernels that an op launches, where that is not one."""

PICKED = MappingProxyType({
    "nll_loss_forward": 1, "nll_loss2d_forward": 1, "nll_loss_backward": 2, "nll_loss2d_backward": 2, "gather": 1,
})  # fmt: skip
"""Ops that read of their data only what positions pick out, and which of their tensors those are."""
CLASSES = MappingProxyType({
    **dict.fromkeys(("gelu", "silu", "tanh", "sigmoid", "exp", "erf", "log", "pow", "softplus", "mish", "elu"), "activation"),
    **dict.fromkeys(("gelu_backward", "silu_backward", "tanh_backward", "sigmoid_backward", "elu_backward"), "activation_backward"),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm", "native_group_norm"), "norm"),
    **dict.fromkeys(("native_layer_norm_backward", "_fused_rms_norm_backward", "native_group_norm_backward"), "norm_backward"),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional", "cudnn_batch_norm"), "batch_norm",
    ),
    "native_batch_norm_backward": "batch_norm_backward",
    "_softmax": "softmax", "_softmax_backward_data": "softmax_backward",
    "_log_softmax": "log_softmax", "_log_softmax_backward_data": "log_softmax_backward",
    **dict.fromkeys(("nll_loss_forward", "nll_loss_backward", "nll_loss2d_forward", "nll_loss2d_backward"), "loss"),
    **dict.fromkeys(("sum", "var", "var_mean", "amax", "linalg_vector_norm"), "reduce"), "mean": "mean",
    **dict.fromkeys(("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "max_pool3d_with_indices"), "pool"),
    **dict.fromkeys(
        (
            "max_pool2d_with_indices_backward", "avg_pool2d_backward", "_adaptive_avg_pool2d_backward",
            "max_pool3d_with_indices_backward",
        ),
        "pool_backward",
    ),
    **dict.fromkeys(("embedding", "index", "index_select", "gather"), "gather"),
    **dict.fromkeys(("embedding_dense_backward", "index_put", "index_add", "scatter_add", "scatter"), "scatter"),
    **dict.fromkeys(("copy", "clone", "cat", "stack"), "copy"), "_to_copy": "cast",
})  # fmt: skip
"""Classes of memory-bound ops that are no plain elementwise ones, as a calibration measures them."""

MANY_CHANNELS = 180
"""From here on, half-way in octaves from 64 to 512, a batch norm that works channel by channel keeps an accelerator busy."""


def class_of(name: str, shape: Mapping[str, Any]) -> str:
    """Return the class of a memory-bound op, empty for an elementwise one."""
    found = CLASSES.get(name, "")
    return f"{found}_wide" if shape.get("channels", 0) > MANY_CHANNELS and found.startswith("batch_norm") else found


# What a compiler's scheduler cannot join with its neighbours: kernels of a library, or scattered and ordered access.
_ALONE = (
    "pool", "upsample", "embedding", "index", "scatter", "sort", "topk", "cumsum", "cumprod", "grid_sampler", "im2col", "col2im", "unfold",
    "nll_loss", "gather", "unique", "roll", "histc", "bincount", "multinomial",
)  # fmt: skip


def is_fusible(name: str) -> bool:
    """Tell whether a compiler can run an op in one kernel with its neighbours: elementwise ops, copies, reductions, norms.

    Source: Ansel et al., PyTorch 2, ASPLOS 2024, section 4.4 (the scheduler fuses pointwise and reduction nodes).
    """
    return not any(word in name for word in _ALONE)


def is_product(name: str) -> bool:
    """Tell whether an op multiplies matrices and its FLOPs are known."""
    return name in PRODUCTS or name in (CONVOLUTION, CONVOLUTION_BACKWARD, "_grouped_mm")


def has_no_formula(namespace: str, name: str) -> bool:
    """Tell whether an op may multiply matrices in a way that is not known here: it is refused, since its FLOPs would pass for none."""
    if namespace not in ("aten", "prims"):
        return True
    if is_product(name) or name in _NO_MATRIX or name.startswith(_POINTWISE_NAMES):
        return False
    return any(word in _MATRIX_WORDS for word in name.split("_"))
