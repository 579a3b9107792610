"""Which model of the library a classic run trained."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from foretrain.errors import ModelError
from foretrain.models.architectures import build_model
from foretrain.models.load import load_model
from foretrain.models.model import Model
from foretrain.models.timm_name import PREFIX, timm_model
from foretrain.validate.cells import Row, text


@dataclass(frozen=True, slots=True)
class Named:
    """A model by the words that name it, with those of data and framework where they tell two heads or variants apart."""

    pattern: str
    name: str
    data: str = ""
    framework: str = ""
    note: str = ""


MODELS = (
    Named(r"AlexNet", "alexnet-two-tower", framework=r"^Torch7 cuDNN"),
    Named(r"AlexNet", "alexnet"),
    Named(r"VGG-A$|^VGG-11$", "vgg-11"),
    Named(r"VGG-?(13|16|19)$", r"vgg-\1"),
    Named(r"Inception-v1|GoogLeNet", "googlenet"),
    Named(r"Inception-v3", "inception-v3"),
    Named(r"Inception-v4", "inception-v4"),
    Named(r"ResNet-50 v1\.5", "resnet-50"),
    Named(r"ResNet-50 v1b", "resnet-50", note="v1b taken as v1.5: both put the stride on the 3x3 convolution"),
    Named(r"^ResNet-(18|34)$", r"resnet-\1"),
    Named(r"^GPT-2", "gpt2"),
    Named(r"^ResNet-(50|101|152)$", r"resnet-\1-v1", framework=r"\bTF|TensorFlow"),
    Named(r"^ResNet-(50|101|152|200)$", r"resnet-\1"),
    Named(r"^SE-?ResNe?Xt-?101-32x4d", "se-resnext-101-32x4d"),
    Named(r"^ResNe?Xt-?101-32x4d", "resnext-101-32x4d"),
    Named(r"RetinaNet", "retinanet"),
    Named(r"BERT-(Base|Large)", r"bert-\1-classifier", data=r"SQuAD|finetune", note="head of spans taken as a classifier of one token"),
    Named(r"BERT-(Base|Large)", r"bert-\1"),
    Named(r"GPT h768 L12", "gpt2"),
    Named(r"DLRM-DCNv2", "dlrm-dcnv2"),
    Named(r"DLRM", "dlrm"),
)
"""In order of priority; groups of the pattern stand in the name of the library's model."""

UNPADDED = re.compile(r"unpadded|packed", re.IGNORECASE)
UNPADDED_LENGTH = 256
"""Mean tokens of a Wikipedia sample of at most 512: half of the positions are padding. Source: Krell et al., arXiv:2107.02027."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Length in tokens or pixels a side, None where the row does not say."""

    seq_len: int | None
    image_size: int | None


def model_of(row: Row) -> tuple[Model, tuple[str, ...]]:
    """Return the model of a row at its size of samples, and what had to be assumed.

    Raises:
        ModelError: where the library has none of that name.
        ForetrainError: where its size is impossible.
    """
    name, note = _name(text(row, "model"), text(row, "dataset_input"), text(row, "framework"))
    shape, said = _shape(text(row, "dataset_input"))
    return _loaded(name, shape.seq_len, shape.image_size), (*((note,) if note else ()), *said)


@lru_cache(maxsize=1024)
def _loaded(name: str, seq_len: int | None, image_size: int | None) -> Model:
    if name.startswith(PREFIX):
        return build_model(replace(timm_model(name), image_size=image_size))
    return load_model(name).at_sequence(seq_len).at_image(image_size)


def _name(words: str, data: str, framework: str) -> tuple[str, str]:
    for named in MODELS:
        found = re.search(named.pattern, words, re.IGNORECASE)
        if found and re.search(named.data, data, re.IGNORECASE) and re.search(named.framework, framework):
            return found.expand(named.name).lower(), named.note
    if not words:
        raise ModelError("model is not given")
    if re.fullmatch(r"[a-z0-9_]+", words):
        return f"{PREFIX}{words}", ""
    raise ModelError(f"model {words!r} is not in this release's library")


def _shape(data: str) -> tuple[Shape, tuple[str, ...]]:
    if UNPADDED.search(data):
        return Shape(seq_len=UNPADDED_LENGTH, image_size=None), (f"padding left out: {UNPADDED_LENGTH} tokens a sample on average",)
    length = re.search(r"seq(?:<=)?\s*(\d+)", data)
    pixels = re.search(r"(\d+)x\1\b|ImageNet (\d+)\b", data)
    size = int(pixels.group(1) or pixels.group(2)) if pixels else None
    return Shape(seq_len=int(length.group(1)) if length else None, image_size=size), ()
