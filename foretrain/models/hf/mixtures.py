"""Decoders with mixtures of experts, and DeepSeek's latent attention."""

from __future__ import annotations

from dataclasses import replace

from foretrain.models.hf.decoders import DECODERS, Family, assembled, read_decoder, read_mlp
from foretrain.models.hf.fields import Fields
from foretrain.models.hf.words import ACTIVATIONS, gated, sequence
from foretrain.models.network import Network
from foretrain.models.parts import RMS, Attention, Experts, Latent, Layer, Mlp

_LATENT = Family(norm=RMS)


def read_mixture(f: Fields) -> Network:
    """Return a decoder whose layers are all mixtures (Mixtral, OLMoE, Granite MoE), or some (Qwen MoE)."""
    family = DECODERS[f.model_type]
    width = {"qwen2_moe": "moe_intermediate_size", "qwen3_moe": "moe_intermediate_size"}.get(f.model_type, "intermediate_size")
    experts = _experts(f, f.size(width), count="num_local_experts" if f.model_type in ("mixtral", "granitemoe") else "num_experts")
    if f.model_type == "qwen2_moe":
        shared = read_mlp(f, family, f.size("shared_expert_intermediate_size"))
        experts = replace(experts, shared=shared, shared_gate=True)
    if not f.model_type.startswith("qwen"):
        return read_decoder(f, lambda _f, _index: experts)
    dense, every, only = read_mlp(f, family), f.size("decoder_sparse_step"), f.numbers("mlp_only_layers")
    return read_decoder(f, lambda _f, index: dense if index in only or (index + 1) % every else experts)


def read_gpt_oss(f: Fields) -> Network:
    """Return a decoder of experts with biases, a router with one, and attention with learned sinks."""
    experts = _experts(f, f.size("intermediate_size"), count="num_local_experts")
    mlp = replace(experts.mlp, up_bias=True, down_bias=True)
    return read_decoder(f, lambda _f, _index: replace(experts, mlp=mlp, router_bias=True))


def read_glm_moe(f: Fields) -> Network:
    """Return a decoder of grouped-query attention with DeepSeek's mixture."""
    dense, experts, first = read_mlp(f, DECODERS[f.model_type]), _deepseek_experts(f), f.count("first_k_dense_replace")
    _skip_prediction(f)
    return read_decoder(f, lambda _f, index: dense if index < first else experts)


def read_deepseek(f: Fields) -> Network:
    """Return a decoder of latent attention; after the first dense layers come mixtures with shared experts."""
    hidden, layers = f.needed("hidden_size"), f.needed("num_hidden_layers")
    attention, first = _latent(f), f.count("first_k_dense_replace")
    bias = f.model_type == "deepseek_v2" and f.flag("mlp_bias")
    dense, experts = read_mlp(f, replace(_LATENT, mlp_bias=bias)), _deepseek_experts(f)
    if bias and experts.shared is not None:
        experts = replace(experts, shared=replace(experts.shared, up_bias=True, down_bias=True))
    _skip_prediction(f)
    made = [
        Layer(
            attention=attention, mlp=dense if index < first else experts, norm=RMS,
            name="layer" if first in (0, layers) else "dense_layer" if index < first else "expert_layer",
        )
        for index in range(layers)
    ]  # fmt: skip
    sequence(f)
    return assembled(f, _LATENT, hidden, made)


def _latent(f: Fields) -> Attention:
    heads, rope, nope = f.needed("num_attention_heads"), f.size("qk_rope_head_dim"), f.count("qk_nope_head_dim")
    bias = f.flag("attention_bias")
    if f.has("num_key_value_heads") and f.size("num_key_value_heads") != heads:
        f.fault(f"num_key_value_heads is not num_attention_heads, {heads}: latent attention makes keys for each head")
    latent = Latent(query_rank=f.maybe("q_lora_rank"), key_rank=f.size("kv_lora_rank"), rope_dim=rope)
    return Attention(
        heads=heads, kv_heads=heads, head_dim=nope + rope, value_dim=f.size("v_head_dim"), dropout=f.share("attention_dropout") > 0,
        qkv_bias=bias, out_bias=bias, rotary=rope, latent=latent,
    )  # fmt: skip


def _deepseek_experts(f: Fields) -> Experts:
    width = f.size("moe_intermediate_size")
    shared = f.count("n_shared_experts")
    experts = _experts(f, width, count="n_routed_experts")
    return replace(experts, shared=replace(experts.mlp, width=width * shared) if shared else None)


def _experts(f: Fields, width: int, count: str) -> Experts:
    experts, chosen = f.size(count), f.maybe("num_experts_per_tok")
    if chosen is None:
        f.fault("num_experts_per_tok is missing; say how many experts a token meets")
        chosen = 1
    if chosen > experts:
        f.fault(f"num_experts_per_tok {chosen} exceeds the {experts} experts of {count}")
    act = gated(f.word("hidden_act", ACTIVATIONS))
    return Experts(count=experts, per_token=min(chosen, experts), mlp=Mlp(width=width, activation=act, gated=True))


def _skip_prediction(f: Fields) -> None:
    if f.has("num_nextn_predict_layers") and f.count("num_nextn_predict_layers"):
        f.note("num_nextn_predict_layers: left out, as transformers leaves out what predicts further tokens (`further: 1` in a profile)")


