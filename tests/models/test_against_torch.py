"""FLOPs and saved bytes against what torch counts and keeps for the same layers, written out in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from foretrain.models.ops import Layout
from foretrain.models.transformer import build, transformer_from_dimensions

torch = pytest.importorskip("torch")
functional = torch.nn.functional

BATCH, SEQ, HIDDEN, HEADS, VOCAB, LAYERS = 2, 24, 32, 4, 96, 2
GPT = transformer_from_dimensions("gpt", name="gpt", layers=LAYERS, hidden=HIDDEN, heads=HEADS, vocab=VOCAB, seq_len=SEQ)
KV_HEADS, WIDTH = 2, 56
LLAMA = transformer_from_dimensions(
    "llama", name="llama", layers=LAYERS, hidden=HIDDEN, heads=HEADS, kv_heads=KV_HEADS, ffn_hidden=WIDTH, vocab=VOCAB, seq_len=SEQ
)
HEAD = HIDDEN // HEADS


def weight(rows: int, columns: int) -> Any:
    return torch.randn(rows, columns, requires_grad=True)


def bias(size: int) -> Any:
    return torch.zeros(size, requires_grad=True)


def dropout(x: Any) -> Any:
    # The kernel that keeps a mask of one byte an element, as accelerators run it.
    return torch.native_dropout(x, 0.1, True)[0]  # noqa: FBT003  # torch's signature


def heads(x: Any, count: int) -> Any:
    return x.view(BATCH, SEQ, count, HEAD).transpose(1, 2)


def core(q: Any, k: Any, v: Any, drop: Callable[[Any], Any]) -> Any:
    """Return softmax(Q·Kᵀ)·V as unfused kernels, heads side by side again."""
    scores = (q / HEAD**0.5) @ k.transpose(-1, -2)
    return (drop(torch.softmax(scores, -1)) @ v).transpose(1, 2).reshape(BATCH, SEQ, -1)


def gpt_layer() -> Callable[[Any], Any]:
    qkv, projection = weight(3 * HIDDEN, HIDDEN), weight(HIDDEN, HIDDEN)
    up, down = weight(4 * HIDDEN, HIDDEN), weight(HIDDEN, 4 * HIDDEN)
    scale, shift = torch.ones(HIDDEN, requires_grad=True), bias(HIDDEN)
    biases = bias(3 * HIDDEN), bias(HIDDEN), bias(4 * HIDDEN), bias(HIDDEN)

    def layer(x: Any) -> Any:
        y = functional.layer_norm(x, (HIDDEN,), scale, shift)
        q, k, v = functional.linear(y, qkv, biases[0]).split(HIDDEN, -1)
        y = core(heads(q, HEADS), heads(k, HEADS), heads(v, HEADS), dropout)
        x = x + dropout(functional.linear(y, projection, biases[1]))
        y = functional.layer_norm(x, (HIDDEN,), scale, shift)
        y = functional.linear(functional.gelu(functional.linear(y, up, biases[2])), down, biases[3])
        return x + dropout(y)

    return layer


def llama_layer() -> Callable[[Any], Any]:
    qkv, projection = weight((HEADS + 2 * KV_HEADS) * HEAD, HIDDEN), weight(HIDDEN, HIDDEN)
    up, down = weight(2 * WIDTH, HIDDEN), weight(HIDDEN, WIDTH)

    def layer(x: Any) -> Any:
        q, k, v = functional.linear(x, qkv).split([HEADS * HEAD, KV_HEADS * HEAD, KV_HEADS * HEAD], -1)
        k, v = (heads(part, KV_HEADS).repeat_interleave(HEADS // KV_HEADS, 1) for part in (k, v))
        x = x + functional.linear(core(heads(q, HEADS), k, v, lambda p: p), projection)
        gate, value = functional.linear(x, up).split(WIDTH, -1)
        return x + functional.linear(functional.silu(gate) * value, down)

    return layer


def loss_of(layer: Callable[[], Callable[[Any], Any]]) -> Any:
    """Return the loss of a whole model of `LAYERS` such layers, on random tokens."""
    tokens = torch.randint(VOCAB, (BATCH, SEQ))
    table, logits = weight(VOCAB, HIDDEN), weight(VOCAB, HIDDEN)
    x = functional.embedding(tokens, table)
    for one in [layer() for _ in range(LAYERS)]:
        x = one(x)
    return functional.cross_entropy(functional.linear(x, logits).flatten(0, 1), tokens.flatten())


@pytest.mark.parametrize(("spec", "layer"), [(GPT, gpt_layer), (LLAMA, llama_layer)], ids=["gpt", "llama"])
def test_flop_equal_what_torch_counts(spec: Any, layer: Callable[[], Callable[[Any], Any]]) -> None:
    """Forward and backward, to the last multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  # torch is optional

    with FlopCounterMode(display=False) as counter:
        loss_of(layer).backward()
    assert counter.get_total_flops() == BATCH * build(spec).flop_per_sample()


def test_a_gpt_layer_saves_what_autograd_saves() -> None:
    """The bytes of every tensor that autograd keeps for one layer in fp32, parameters and row statistics apart."""
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        if not tensor.is_leaf or not tensor.requires_grad:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    layer, x = gpt_layer(), torch.randn(BATCH, SEQ, HIDDEN, requires_grad=True) * 1.0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(x)
    statistics = {id(tensor) for tensor in kept.values() if tensor.numel() == BATCH * SEQ}
    measured = sum(t.untyped_storage().nbytes() for t in kept.values() if id(t) not in statistics and not is_parameter(t))
    predicted = sum(op.saved_bytes(Layout(micro_batch=BATCH, element_bytes=4.0)) for op in build(GPT).layers[0][0].ops)
    assert out.requires_grad
    assert measured == predicted


def is_parameter(tensor: Any) -> bool:
    base = tensor if tensor._base is None else tensor._base
    return bool(base.is_leaf and base.requires_grad)
