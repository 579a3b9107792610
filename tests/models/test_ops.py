"""Single ops, in sizes small enough to work out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foretrain.models.attention import CoreAttention
from foretrain.models.embedding import Embedding
from foretrain.models.loss import CrossEntropy
from foretrain.models.matmul import Linear, divided
from foretrain.models.ops import FusedAttention, Gemm, Layout
from foretrain.models.stream import Streaming, Traffic

ONE = Layout(micro_batch=2)
FOUR = Layout(micro_batch=2, tp=4)
COLUMN = Linear(name="up", tokens=10, in_features=8, out_features=32, bias=True, cut="column")
ROW = Linear(name="down", tokens=10, in_features=32, out_features=8, bias=False, cut="row")
CORE = CoreAttention(name="attention", tokens=16, heads=8, kv_heads=4, head_dim=4, causal=True, dropout=True)


def test_a_linear_is_three_products_and_a_bias_sum() -> None:
    """Forward, gradient of the input, gradient of the weight; 2·20·32·8 FLOPs each."""
    (forward,) = COLUMN.forward(ONE)
    bias, data, weight = COLUMN.backward(ONE)
    assert forward.gemm == Gemm(batch=1, m=20, n=32, k=8)
    assert data.gemm == Gemm(batch=1, m=20, n=8, k=32)
    assert weight.gemm == Gemm(batch=1, m=32, n=8, k=20)
    assert {kernel.flop for kernel in (forward, data, weight)} == {2.0 * 20 * 32 * 8}
    assert {kernel.moved_bytes for kernel in (forward, data, weight)} == {2.0 * (20 * 8 + 8 * 32 + 20 * 32)}
    assert (bias.gemm, bias.flop, bias.moved_bytes) == (None, 0.0, 2.0 * 20 * 32)


def test_only_the_cut_dimension_shrinks() -> None:
    """Column-parallel cuts the outputs, row-parallel the inputs; rows stay whole, with sequence parallelism too."""
    for layout in (FOUR, replace(FOUR, sequence_parallel=True)):
        assert COLUMN.forward(layout)[0].gemm == Gemm(batch=1, m=20, n=8, k=8)
        assert ROW.forward(layout)[0].gemm == Gemm(batch=1, m=20, n=8, k=8)


def test_an_uncut_linear_works_on_its_shard_of_the_sequence() -> None:
    """Outside the regions only sequence parallelism shares rows; else every rank repeats the work."""
    whole = replace(COLUMN, cut="none")
    assert whole.forward(FOUR)[0].gemm == Gemm(batch=1, m=20, n=32, k=8)
    assert whole.forward(replace(FOUR, sequence_parallel=True))[0].gemm == Gemm(batch=1, m=5, n=32, k=8)
    assert whole.forward(FOUR)[0].flop == 4 * whole.forward(FOUR)[0].model_flop


def test_a_column_input_is_shared_only_with_sequence_parallelism() -> None:
    """Korthikanti et al., section 4.2.2: each rank keeps its shard and gathers again in backward."""
    assert COLUMN.saved_bytes(FOUR) == COLUMN.saved_bytes(ONE) == 2.0 * 20 * 8
    assert COLUMN.saved_bytes(replace(FOUR, sequence_parallel=True)) == 2.0 * 20 * 8 / 4
    assert ROW.saved_bytes(FOUR) == 2.0 * 20 * 32 / 4
    assert replace(COLUMN, saves_output=True).saved_bytes(FOUR) == 2.0 * 20 * (8 + 32 / 4)
    assert replace(COLUMN, saves_input=False).saved_bytes(FOUR) == 0.0


@pytest.mark.parametrize(("size", "ranks", "pad_to", "part"), [(100, 1, 1, 100), (100, 4, 1, 25), (100, 8, 1, 13), (50257, 8, 128, 6400)])
def test_a_part_is_padded_up(size: int, ranks: int, pad_to: int, part: int) -> None:
    """The whole is padded to a multiple of ranks and padding."""
    assert divided(size, ranks, pad_to) == part


def test_unfused_attention_is_two_products_forward_and_four_backward() -> None:
    """Each of 2·16·16·4 FLOPs per head, with softmax and dropout between them."""
    forward, backward = CORE.forward(FOUR), CORE.backward(FOUR)
    assert [kernel.name.split(".", 1)[1] for kernel in forward] == ["scores", "softmax", "dropout", "context"]
    products = [kernel for kernel in (*forward, *backward) if kernel.gemm]
    assert len(products) == 6
    assert {kernel.gemm.batch for kernel in products if kernel.gemm} == {2 * 8 // 4}
    assert {kernel.flop for kernel in products} == {4 * 2.0 * 16 * 16 * 4}


def test_attention_without_dropout_keeps_the_softmax_once() -> None:
    """2 bytes a score instead of 2 + 1 + 2."""
    assert CORE.saved_bytes(ONE) == 5.0 * 2 * 8 * 16**2
    assert replace(CORE, dropout=False).saved_bytes(ONE) == 2.0 * 2 * 8 * 16**2
    assert len(replace(CORE, dropout=False).forward(ONE)) == 3


def test_fused_attention_runs_half_of_a_causal_square_and_five_products_backward() -> None:
    """Model FLOPs stay in full: 4·s²·d forward and twice that backward, per head."""
    layout = replace(FOUR, flash=True)
    (forward,), (backward,) = CORE.forward(layout), CORE.backward(layout)
    assert forward.attention == FusedAttention(heads=4, queries=16, keys=16, head_dim=4, causal=True, backward=False)
    assert forward.model_flop == 4 * 4 * 16**2 * 4
    assert (forward.flop, backward.flop) == (forward.model_flop / 2, 2.5 * forward.model_flop / 2)
    assert backward.model_flop == 2 * forward.model_flop
    # Q and out of 4 heads, K and V of 2 (4 key-value heads over 4 ranks, 2 samples), and the statistics of 4 heads.
    assert forward.moved_bytes == 2.0 * 16 * 4 * (2 * 4 + 2 * 2) + 4.0 * 4 * 16


def test_attention_that_sees_both_ways_runs_the_whole_square() -> None:
    """Without a causal mask, fused and unfused forward passes run the same."""
    both = replace(CORE, causal=False)
    assert both.forward(replace(ONE, flash=True))[0].flop == sum(kernel.flop for kernel in both.forward(ONE))


def test_a_window_runs_a_band() -> None:
    """Each query sees 4 keys: 16·4 − 4·4/2 pairs a head are run, 16·4 are asked for; a window as wide as the sequence changes nothing."""
    layout = replace(ONE, flash=True)
    (kernel,) = replace(CORE, window=4).forward(layout)
    assert kernel.flop == 4.0 * 16 * (16 * 4 - 8) * 4
    assert kernel.model_flop == 4.0 * 16 * 16 * 4 * 4
    assert kernel.attention == FusedAttention(heads=16, queries=16, keys=4, head_dim=4, causal=False, backward=False)
    assert replace(CORE, window=16).forward(layout) == CORE.forward(layout)


def test_a_stream_op_moves_its_passes_and_its_mask() -> None:
    """100 elements, 2 samples, 3 passes of 2 bytes and a mask of 1; fused 2 passes."""
    op = Streaming(
        name="add",
        elements=100,
        split="sequence",
        pattern="norm",
        fused=Traffic(forward=2, backward=2, forward_launches=1, backward_launches=1, saved=0),
        unfused=Traffic(forward=3, backward=4, forward_launches=5, backward_launches=6, saved=1),
        mask_bytes=1.0,
    )
    assert (op.forward(ONE)[0].moved_bytes, op.forward(ONE)[0].launches) == (200 * 7.0, 5)
    assert (op.backward(ONE)[0].moved_bytes, op.backward(ONE)[0].launches) == (200 * 9.0, 6)
    assert op.saved_bytes(ONE) == 200 * 3.0
    fused = replace(ONE, fused=frozenset({"norm"}))
    assert (op.forward(fused)[0].moved_bytes, op.saved_bytes(fused)) == (200 * 5.0, 200.0)


@pytest.mark.parametrize(
    ("split", "sequence_parallel", "share"),
    [("tensor", False, 4), ("tensor", True, 4), ("sequence", False, 1), ("sequence", True, 4), ("none", True, 1)],
)
def test_a_stream_op_is_shared_as_its_tensor_is(split: str, sequence_parallel: bool, share: int) -> None:  # noqa: FBT001  # a parameter
    """Inside a region by tp, between regions by sequence parallelism, or not at all."""
    traffic = Traffic(forward=2, backward=2, forward_launches=1, backward_launches=1, saved=1)
    op = Streaming(name="x", elements=64, split=split, pattern="", fused=traffic, unfused=traffic)  # type: ignore[arg-type]  # drawn
    layout = Layout(micro_batch=1, tp=4, sequence_parallel=sequence_parallel)
    assert op.saved_bytes(layout) == 64 * 2.0 / share


def test_an_embedding_saves_nothing_and_blanks_its_gradient() -> None:
    """A rank's part of the dense gradient is blanked, whatever the batch; several ranks blank each other's rows forward."""
    op = Embedding(name="embedding", tokens=10, vocab=100, width=8)
    rows = 2.0 * 2 * 10 * 8
    assert op.saved_bytes(ONE) == 0.0
    assert (op.forward(ONE)[0].moved_bytes, op.forward(FOUR)[0].moved_bytes) == (2 * rows, 4 * rows)
    assert op.backward(FOUR)[0].moved_bytes == 3 * rows + 2.0 * 25 * 8
    assert op.parameters_per_rank(4) == 200.0


def test_a_loss_keeps_fp32_whatever_the_precision() -> None:
    """4 bytes a logit, in 16-bit and in 32-bit training."""
    op = CrossEntropy(name="loss", tokens=10, vocab=100)
    assert op.saved_bytes(FOUR) == op.saved_bytes(replace(FOUR, element_bytes=4.0)) == 4.0 * 2 * 10 * 25
