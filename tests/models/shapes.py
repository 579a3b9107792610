"""Random transformers for the tests of the models."""

from __future__ import annotations

from hypothesis import strategies as st

from foretrain.models.transformer import Transformer, transformer_from_dimensions

TP = (1, 2, 4, 8)


@st.composite
def gpts(draw: st.DrawFn) -> Transformer:
    """Draw a GPT whose heads, widths and vocabulary eight tensor-parallel ranks divide."""
    heads = 8 * draw(st.integers(1, 16))
    return transformer_from_dimensions(
        "gpt",
        name="random GPT",
        layers=draw(st.integers(1, 120)),
        hidden=heads * 8 * draw(st.integers(1, 16)),
        heads=heads,
        vocab=64 * draw(st.integers(1, 1000)),
        seq_len=8 * draw(st.integers(1, 512)),
    )


@st.composite
def llamas(draw: st.DrawFn) -> Transformer:
    """Draw a Llama with grouped-query attention whose dimensions eight tensor-parallel ranks divide."""
    kv_heads = 8 * draw(st.integers(1, 4))
    heads = kv_heads * draw(st.integers(1, 8))
    return transformer_from_dimensions(
        "llama",
        name="random Llama",
        layers=draw(st.integers(1, 120)),
        hidden=heads * 8 * draw(st.integers(1, 16)),
        heads=heads,
        kv_heads=kv_heads,
        ffn_hidden=64 * draw(st.integers(1, 400)),
        vocab=64 * draw(st.integers(1, 2000)),
        seq_len=8 * draw(st.integers(1, 512)),
    )
