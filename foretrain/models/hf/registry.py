"""Model types that are understood, and the function that reads each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from foretrain.models.hf import encoder_decoders, encoders, gpts, mixtures
from foretrain.models.hf.decoders import DECODERS, read_decoder
from foretrain.models.hf.fields import Fields
from foretrain.models.network import Network

Reader = Callable[[Fields], Network]
READERS: Mapping[str, Reader] = MappingProxyType(
    {
        **dict.fromkeys(DECODERS, read_decoder),
        **dict.fromkeys(("mixtral", "olmoe", "granitemoe", "qwen2_moe", "qwen3_moe"), mixtures.read_mixture),
        "gpt_oss": mixtures.read_gpt_oss,
        "glm4_moe": mixtures.read_glm_moe,
        **dict.fromkeys(("deepseek_v2", "deepseek_v3"), mixtures.read_deepseek),
        "gpt2": gpts.read_gpt2,
        "gpt_neo": gpts.read_gpt_neo,
        "gpt_neox": gpts.read_gpt_neox,
        "gptj": gpts.read_gptj,
        "opt": gpts.read_opt,
        "bloom": gpts.read_bloom,
        "falcon": gpts.read_falcon,
        "mpt": gpts.read_mpt,
        **dict.fromkeys(("bert", "roberta"), encoders.read_bert),
        "distilbert": encoders.read_distilbert,
        "electra": encoders.read_electra,
        "albert": encoders.read_albert,
        **dict.fromkeys(("t5", "mt5"), encoder_decoders.read_t5),
        **dict.fromkeys(("bart", "marian"), encoder_decoders.read_bart),
        **dict.fromkeys(("vit", "deit"), encoders.read_vit),
    }
)
"""By `model_type`. A new family is one function and one entry, and its defaults in `defaults.yaml`."""
