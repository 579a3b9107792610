"""Models of configurations against those that transformers builds of the same: parameters to the last, FLOPs to the last."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from foretrain.models.hf.fields import class_defaults
from foretrain.models.hf.registry import READERS
from foretrain.models.load import list_models, load_model, load_spec

pytest.importorskip("torch", reason="needs torch (the extra `torch`)")
pytest.importorskip("transformers", reason="needs transformers (the extra `test`)")

import torch  # after the check that it is there

from tests.models import hugging_face as hub  # likewise

BATCH, SEQ = 2, 8
REAL = [
    "llama3.2-1b", "mixtral-8x7b", "qwen3-30b-a3b", "deepseek-v2-lite", "gpt-oss-20b", "gemma3-1b", "phi-2", "opt-350m", "falcon-40b",
    "bert-large", "t5-base", "vit-l-16", "bart-base", "mpt-7b", "opt-6.7b", "gpt-j-6b",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _ready() -> None:
    hub.ready()


def test_every_model_type_has_a_case() -> None:
    """No family goes unchecked."""
    assert {model_type for model_type, _ in hub.CASES.values()} == READERS.keys() == class_defaults().keys()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", hub.CASES)
def test_parameters_and_flop_equal_those_of_transformers(name: str) -> None:
    """Forward and backward of every product, by torch's own count, with attention and experts as separate products.

    torch counts neither grouped products nor, before version 2.9, fused attention, and a window not at all: sequences are shorter.
    """
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  # after the check that torch is there

    config = hub.configuration(*hub.CASES[name])
    model = hub.theirs(config, "cpu").train()
    image = config.model_type in ("vit", "deit")
    mine = hub.ours(config, None if image else SEQ)
    assert mine.parameters == hub.trainable(model)
    with FlopCounterMode(display=False) as counter:
        out = model(**_inputs(config, image=image))
        sum(value.sum() for key, value in out.items() if "logits" in key).backward()
    assert counter.get_total_flops() == BATCH * mine.flop_per_sample()


def _inputs(config: Any, *, image: bool) -> dict[str, Any]:
    if image:
        return {"pixel_values": torch.randn(BATCH, config.num_channels, config.image_size, config.image_size)}
    tokens = torch.randint(3, 90, (BATCH, SEQ))
    if config.is_encoder_decoder:
        return {"input_ids": tokens, "decoder_input_ids": tokens, "use_cache": False}
    return {"input_ids": tokens} | ({} if config.model_type in hub.CLASSES else {"use_cache": False})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REAL)
def test_models_of_the_library_have_the_parameters_of_transformers(name: str) -> None:
    """At full size, without memory."""
    spec = load_spec(name)
    fields = {key: value for key, value in spec.config.items() if key != "model_type"}
    model = hub.theirs(hub.configuration(spec.config["model_type"], fields), "meta")
    assert load_model(name).parameters == hub.trainable(model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", READERS)
def test_defaults_are_those_of_the_classes(model_type: str) -> None:
    """Field by field."""
    config = hub.configuration(model_type, {})
    classes = {field.name: field.default for field in dataclasses.fields(type(config))}
    known = class_defaults()[model_type]
    assert {name: classes[name] for name in known["fields"]} == known["fields"]
    assert dict(config.attribute_map) == known.get("other_names", {})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("bert", "BertForMaskedLM"),
        ("bert", "BertForSequenceClassification"),
        ("electra", "ElectraForMaskedLM"),
        ("albert", "AlbertForMaskedLM"),
        ("distilbert", "DistilBertForSequenceClassification"),
        ("roberta", "RobertaForSequenceClassification"),
        ("deit", "DeiTForImageClassificationWithTeacher"),
    ],
)
def test_the_class_named_in_the_file_gives_the_head(model_type: str, class_name: str) -> None:
    """`architectures` says what is trained."""
    fields = next(fields for kind, fields in hub.CASES.values() if kind == model_type)
    config = hub.configuration(model_type, {**fields, "architectures": [class_name], "num_labels": 5})
    assert hub.ours(config).parameters == hub.trainable(hub.theirs(config, "meta", class_name))


def test_the_library_names_only_types_that_are_read() -> None:
    """Every profile that holds a configuration."""
    specs = [load_spec(name) for name in list_models()]
    assert {spec.config["model_type"] for spec in specs if hasattr(spec, "config")} <= READERS.keys()
