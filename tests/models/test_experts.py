"""Grouped products of experts, latent attention and attention across: closed forms, and how tensor parallelism cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.models.attention import CoreAttention
from foretrain.models.experts import GroupedLinear
from foretrain.models.load import list_models, load_model
from foretrain.models.ops import KernelKind, Layout
from foretrain.models.patterns import FUSION_PATTERNS

properties = settings(deadline=None, derandomize=True, max_examples=60)


def experts(tokens: int, count: int, per_token: int) -> GroupedLinear:
    return GroupedLinear(
        name="experts", tokens=tokens, experts=count, per_token=per_token, in_features=64, out_features=128, bias=False, cut="column"
    )


@properties
@given(tokens=st.integers(1, 500), count=st.integers(1, 64), data=st.data(), tp=st.sampled_from([1, 2, 4]))
def test_flop_follow_the_tokens_and_not_the_experts(tokens: int, count: int, data: st.DataObject, tp: int) -> None:
    """2·t·k·m·n each way, however many experts there are; the ranks' shares sum to it."""
    per_token = data.draw(st.integers(1, count))
    op, layout = experts(tokens, count, per_token), Layout(micro_batch=1, tp=tp)
    kernels = (*op.forward(layout), *op.backward(layout))
    assert [kernel.flop * tp for kernel in kernels] == [2.0 * tokens * per_token * 64 * 128] * 3
    assert op.parameters - op.idle_parameters == per_token * 64 * 128


def test_experts_that_no_token_meets_are_not_read() -> None:
    """One token of two experts: two weights move, not eight."""
    (kernel,) = experts(1, 8, 2).forward(Layout(micro_batch=1))
    assert kernel.gemm is not None
    assert (kernel.gemm.batch, kernel.gemm.m) == (2, 1)
    assert kernel.moved_bytes == 2 * 2 * (64 + 64 * 128 + 128)


@properties
@given(
    queries=st.integers(1, 64), keys=st.integers(1, 64), heads=st.sampled_from([1, 4]), width=st.integers(1, 64), values=st.integers(1, 64)
)
def test_attention_across_counts_queries_times_keys(queries: int, keys: int, heads: int, width: int, values: int) -> None:
    """2·h·q·k·(d + dᵥ) forward and twice that backward, as separate products and as one kernel; the fused one runs 2.5 times as many."""
    op = CoreAttention(
        name="cross", tokens=queries, heads=heads, kv_heads=heads, head_dim=width, causal=False, dropout=False, key_tokens=keys,
        value_dim=values,
    )  # fmt: skip
    expected = 2.0 * heads * queries * keys * (width + values)
    for layout in (Layout(micro_batch=1), Layout(micro_batch=1, flash=True)):
        assert sum(kernel.model_flop for kernel in op.forward(layout)) == expected
        assert sum(kernel.model_flop for kernel in op.backward(layout)) == 2 * expected
    assert op.backward(Layout(micro_batch=1, flash=True))[0].flop == 2.5 * expected


@pytest.mark.parametrize("name", [name for name in list_models() if load_model(name).tensor_dims])
def test_every_model_of_the_library_is_cut_whole(name: str) -> None:
    """The model FLOPs of two tensor-parallel ranks sum to the model's, and saved bytes shrink with sequence parallelism."""
    model = load_model(name)
    if any(size % 2 for size in model.tensor_dims.values()):
        pytest.skip(f"two ranks do not divide {dict(model.tensor_dims)}")
    cut = Layout(micro_batch=1, tp=2, sequence_parallel=model.seq_len is not None, fused=FUSION_PATTERNS)
    whole = Layout(micro_batch=1, fused=FUSION_PATTERNS)
    flop = dict.fromkeys((cut, whole), 0.0)
    saved = dict(flop)
    for block, count in model.blocks():
        for op in block.ops:
            for layout in flop:
                kernels = (*op.forward(layout), *op.backward(layout))
                flop[layout] += count * sum(kernel.model_flop for kernel in kernels if kernel.kind != KernelKind.CONVOLUTION)
                saved[layout] += count * op.saved_bytes(layout)
    assert 2 * flop[cut] == pytest.approx(flop[whole], rel=1e-9)
    assert saved[cut] < saved[whole]
