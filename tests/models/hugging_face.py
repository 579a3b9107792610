"""Models of transformers to hold ours against: small configurations of every family, on the meta device or for real."""

from __future__ import annotations

import json
from typing import Any

import pytest

from foretrain.models.hf.config import Config, build
from foretrain.models.model import Model

torch = pytest.importorskip("torch", reason="needs torch (the extra `torch`)")
transformers = pytest.importorskip("transformers", reason="needs transformers (the extra `test`)")

BASE = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 100, "intermediate_size": 72}
GQA = {**BASE, "num_key_value_heads": 2}
SEQ2SEQ = {
    "d_model": 48, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 2, "vocab_size": 100,
    "encoder_ffn_dim": 40, "decoder_ffn_dim": 56, "pad_token_id": 1, "decoder_start_token_id": 2, "bos_token_id": 0, "eos_token_id": 2,
    "forced_eos_token_id": 2,
}  # fmt: skip
T5 = {"d_model": 48, "d_kv": 20, "d_ff": 72, "num_layers": 2, "num_heads": 3, "vocab_size": 100}
IMAGE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72, "image_size": 40, "patch_size": 8}
MOE = {"moe_intermediate_size": 20, "num_experts_per_tok": 3}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 100, "vocab_size": 100}),
    "gpt2 untied": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 100, "tie_word_embeddings": False}),
    "gpt_neo": ("gpt_neo", {
        "hidden_size": 48, "num_layers": 4, "num_heads": 4, "vocab_size": 100, "attention_types": [[["global", "local"], 2]]
    }),
    "gpt_neox": ("gpt_neox", BASE),
    "gpt_neox in turn": ("gpt_neox", {**BASE, "use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True}),
    "gptj": ("gptj", {"n_embd": 48, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "vocab_size": 100, "n_inner": 90}),
    "opt": ("opt", {**BASE, "ffn_dim": 72}),
    "opt narrow": ("opt", {**BASE, "ffn_dim": 72, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    "opt bare": ("opt", {**BASE, "ffn_dim": 72, "enable_bias": False, "layer_norm_elementwise_affine": False}),
    "bloom": ("bloom", {"hidden_size": 48, "n_layer": 2, "n_head": 4, "vocab_size": 100}),
    "falcon multi-query": ("falcon", {**BASE, "ffn_hidden_size": 90}),
    "falcon grouped": ("falcon", {**BASE, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    "falcon one norm": ("falcon", {**BASE, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    "falcon in turn": ("falcon", {**BASE, "parallel_attn": False, "multi_query": False, "alibi": True}),
    "mpt": ("mpt", {"d_model": 48, "n_heads": 4, "n_layers": 2, "expansion_ratio": 3, "vocab_size": 100}),
    "phi": ("phi", {**GQA, "qk_layernorm": True}),
    "phi3": ("phi3", {**GQA, "pad_token_id": 0}),
    "llama": ("llama", GQA),
    "llama with everything": ("llama", {**GQA, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 20}),
    "mistral": ("mistral", {**GQA, "head_dim": 20}),
    "mixtral": ("mixtral", {**GQA, "num_local_experts": 6}),
    "qwen2": ("qwen2", {**GQA, "tie_word_embeddings": True, "use_sliding_window": True, "max_window_layers": 2}),
    "qwen2_moe": ("qwen2_moe", {
        **GQA, **MOE, "decoder_sparse_step": 2, "mlp_only_layers": [1], "shared_expert_intermediate_size": 28, "num_experts": 6
    }),
    "qwen3": ("qwen3", {**GQA, "attention_bias": True}),
    "qwen3_moe": ("qwen3_moe", {**GQA, **MOE, "mlp_only_layers": [0], "head_dim": 20, "num_experts": 6}),
    "gemma": ("gemma", {**GQA, "head_dim": 20}),
    "gemma2": ("gemma2", {**GQA, "attention_bias": True, "head_dim": 20}),
    "gemma3_text": ("gemma3_text", {**GQA, "head_dim": 20}),
    "starcoder2": ("starcoder2", GQA),
    "starcoder2 bare": ("starcoder2", {**GQA, "use_bias": False}),
    "stablelm": ("stablelm", GQA),
    "stablelm parallel": ("stablelm", {**GQA, "qk_layernorm": True, "use_parallel_residual": True, "use_qkv_bias": True}),
    "olmo": ("olmo", GQA),
    "olmo2": ("olmo2", GQA),
    "olmo3": ("olmo3", GQA),
    "olmoe": ("olmoe", {**GQA, "num_experts": 6, "num_experts_per_tok": 3}),
    "cohere": ("cohere", {**GQA, "use_qk_norm": True}),
    "cohere2": ("cohere2", GQA),
    "granite": ("granite", {**GQA, "mlp_bias": True}),
    "granitemoe": ("granitemoe", {**GQA, "num_local_experts": 6, "num_experts_per_tok": 3}),
    "deepseek_v2": ("deepseek_v2", {
        **BASE, **MOE, "first_k_dense_replace": 1, "q_lora_rank": None, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12,
        "v_head_dim": 10, "attention_bias": True, "mlp_bias": True, "n_shared_experts": 3, "n_routed_experts": 6,
    }),
    "deepseek_v3": ("deepseek_v3", {
        **BASE, **MOE, "first_k_dense_replace": 2, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12,
        "v_head_dim": 10, "n_routed_experts": 8, "n_group": 2, "topk_group": 2,
        "num_key_value_heads": 4,
    }),
    "gpt_oss": ("gpt_oss", {**GQA, "head_dim": 20, "num_local_experts": 6}),
    "glm": ("glm", {**GQA, "pad_token_id": 0, "head_dim": 20}),
    "glm4": ("glm4", {**GQA, "pad_token_id": 0, "head_dim": 20}),
    "glm4_moe": ("glm4_moe", {**GQA, **MOE, "use_qk_norm": True, "n_routed_experts": 8, "head_dim": 20}),
    "smollm3": ("smollm3", {**GQA, "pad_token_id": 0, "attention_bias": True}),
    "bert": ("bert", BASE),
    "bert untied": ("bert", {**BASE, "tie_word_embeddings": False}),
    "roberta": ("roberta", {**BASE, "type_vocab_size": 1}),
    "distilbert": ("distilbert", {"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 72, "vocab_size": 100}),
    "electra": ("electra", {**BASE, "embedding_size": 32}),
    "electra as wide": ("electra", {**BASE, "embedding_size": 64}),
    "albert": ("albert", {**BASE, "embedding_size": 32, "num_hidden_groups": 2, "inner_group_num": 2}),
    "t5": ("t5", {**T5, "num_decoder_layers": 3}),
    "t5 gated": ("t5", {**T5, "feed_forward_proj": "gated-gelu"}),
    "mt5": ("mt5", {**T5, "tie_word_embeddings": False}),
    "bart": ("bart", SEQ2SEQ),
    "bart untied": ("bart", {**SEQ2SEQ, "tie_word_embeddings": False}),
    "marian": ("marian", {**SEQ2SEQ, "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 90}),
    "vit": ("vit", {**IMAGE, "num_labels": 10, "qkv_bias": False}),
    "deit": ("deit", {**IMAGE, "num_labels": 7}),
}  # fmt: skip

CLASSES = {
    "bert": "BertForPreTraining", "roberta": "RobertaForMaskedLM", "distilbert": "DistilBertForMaskedLM", "albert": "AlbertForPreTraining",
    "electra": "ElectraForPreTraining", "t5": "T5ForConditionalGeneration", "mt5": "MT5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration", "marian": "MarianMTModel", "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
}  # fmt: skip


def ready() -> None:
    """Skip where transformers cannot load its models; what it needs of torchvision, no language model does."""
    from transformers import utils  # noqa: PLC0415  # patched before anything else of it loads
    from transformers.utils import import_utils  # noqa: PLC0415

    utils.is_torchvision_available = import_utils.is_torchvision_available = lambda *_args, **_named: False
    utils.logging.set_verbosity_error()
    if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24):
        pytest.skip(f"transformers {transformers.__version__} counts some models otherwise than 5.24")


def configuration(model_type: str, fields: dict[str, Any]) -> Any:
    """Return the configuration object of transformers."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: PLC0415  # after `ready`

    return CONFIG_MAPPING[model_type](**fields)


def theirs(config: Any, device: str, class_name: str = "") -> Any:
    """Return the model of transformers, attention and experts as separate products, which torch counts."""
    name = class_name or CLASSES.get(config.model_type, "")
    kind = getattr(transformers, name) if name else transformers.AutoModelForCausalLM
    make = kind._from_config if name else kind.from_config
    with torch.device(device):
        model = make(config, attn_implementation="eager", experts_implementation="eager")
    model.tie_weights()
    return model


def ours(config: Any, size: int | None = None) -> Model:
    """Return our model of the same configuration, as its config.json writes it."""
    return build(Config(name="x", key="x", config=json.loads(config.to_json_string(use_diff=False)), size=size))


def trainable(model: Any) -> int:
    """Return the parameters of a model of transformers, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
