"""A Hugging Face configuration as the definition of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from foretrain.errors import ModelError, nearest, shortened
from foretrain.models import network
from foretrain.models.hf.fields import Fields
from foretrain.models.hf.registry import READERS
from foretrain.models.model import Model

MOST_FURTHER = 16
WRAPPERS = ("text_config", "llm_config", "language_config")
"""Where a model of several media keeps its language model."""
OTHER_NAMES = MappingProxyType({"gemma3n_text": "gemma3_text"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The fields of a config.json, under the names they have there. `size` is a sample's (None: what the configuration says).

    `masked` is the share of its tokens that a masked language model predicts, all by default, as transformers computes them; `further`
    counts modules that predict one token further each (`num_nextn_predict_layers`), none by default, as transformers builds them.

    Raises:
        ModelError: naming every field that cannot be.
    """

    name: str
    key: str
    config: Mapping[str, Any] = field(hash=False)
    size: int | None = None
    masked: float = 1.0
    further: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        network_of(self)


def build(spec: Config) -> Model:
    """Return the model that a configuration defines."""
    return network.build(network_of(spec))


def network_of(spec: Config) -> network.Network:
    """Return the layers and ends that a configuration defines.

    Raises:
        ModelError: for an unknown family or fields that cannot be.
    """
    data, notes = _language(spec.config)
    model_type = data.get("model_type")
    if not isinstance(model_type, str) or model_type not in READERS:
        known = ", ".join(sorted(READERS))
        what = "model_type is missing" if model_type is None else f"model_type {shortened(model_type)} is unknown"
        raise ModelError(f"{what}{nearest(str(model_type), READERS)}\n  understood are {known}")
    fields = Fields(data, model_type)
    found = READERS[model_type](fields)
    fields.checked()
    if spec.further and not fields.has("num_nextn_predict_layers"):
        raise ModelError(f"further={spec.further}, but a {model_type} without num_nextn_predict_layers has no such modules; leave it 0")
    if not 0 <= spec.further <= MOST_FURTHER:
        raise ModelError(f"further={spec.further} is out of range; give a whole number from 0 to {MOST_FURTHER}")
    kept = [note for note in fields.notes if spec.size is None or not note.startswith("sequences of")]
    head = replace(found.head, share=spec.masked)
    name = spec.name or _name(spec.config, model_type)
    kept = [note for note in kept if not spec.further or not note.startswith("num_nextn_predict_layers")]
    return replace(
        found, name=name, key=spec.key, head=head, size=spec.size or found.size, further=spec.further, assumed=(*notes, *kept)
    )


def _language(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Return the configuration of the language model, and what was passed over."""
    notes = [f"{name}: {why}" for name, why in _PASSED_OVER.items() if config.get(name)]
    inner = next((config[name] for name in WRAPPERS if isinstance(config.get(name), Mapping)), None)
    if inner is None or config.get("model_type") in READERS:
        return config, tuple(notes)
    outer = config.get("model_type")
    notes.append(f"only the language model of this {outer}: its other parts are left out")
    kind = inner.get("model_type", _TEXT_OF.get(str(outer)))
    data = {**inner, "model_type": OTHER_NAMES.get(str(kind), kind)}
    for name in ("tie_word_embeddings",):
        if name in config and name not in data:
            data[name] = config[name]
    return data, tuple(notes)


_TEXT_OF = {"gemma3": "gemma3_text", "llava": "llama", "mistral3": "mistral"}
"""The language model that a wrapper means where its inner configuration does not say."""
_PASSED_OVER = {
    "auto_map": "code of its own is not run; read by its fields as its model_type",
    "quantization_config": "weights are taken as not quantised",
}


def _name(config: Mapping[str, Any], model_type: str) -> str:
    given = config.get("_name_or_path") or config.get("name_or_path")
    return given if isinstance(given, str) and given.isprintable() else f"{model_type} (config.json)"
