"""Kinds of model that a profile can describe: how each is read, and how it is built. A new kind is one entry here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

from foretrain.errors import ProfileError, nearest, shortened
from foretrain.models.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Where the pydantic schema of a kind of profile is, and the function that builds a model of its dimensions.

    Both are `module:name`, imported when a profile of the kind is read: pydantic is slow to import, and most builders are never used.
    The schema has a method `spec(key)` that returns frozen dimensions of class `spec`, which `build` turns into a model.
    """

    schema: str
    spec: str
    build: str


ARCHITECTURES = MappingProxyType(
    {
        "transformer": Architecture(
            schema="foretrain.models.schema:ModelFile",
            spec="foretrain.models.dimensions:Transformer",
            build="foretrain.models.transformer:build",
        ),
        "config": Architecture(
            schema="foretrain.models.hf.schema:ConfigFile",
            spec="foretrain.models.hf.config:Config",
            build="foretrain.models.hf.config:build",
        ),
        "lenet": Architecture(
            schema="foretrain.models.image_schema:LeNetFile",
            spec="foretrain.models.networks.lenet:LeNet",
            build="foretrain.models.networks.lenet:build",
        ),
        "alexnet": Architecture(
            schema="foretrain.models.image_schema:AlexNetFile",
            spec="foretrain.models.networks.alexnet:AlexNet",
            build="foretrain.models.networks.alexnet:build",
        ),
        "vgg": Architecture(
            schema="foretrain.models.image_schema:VggFile",
            spec="foretrain.models.networks.vgg:Vgg",
            build="foretrain.models.networks.vgg:build",
        ),
        "googlenet": Architecture(
            schema="foretrain.models.image_schema:GoogLeNetFile",
            spec="foretrain.models.networks.googlenet:GoogLeNet",
            build="foretrain.models.networks.googlenet:build",
        ),
        "inception-v3": Architecture(
            schema="foretrain.models.image_schema:Inception3File",
            spec="foretrain.models.networks.inception3:Inception3",
            build="foretrain.models.networks.inception3:build",
        ),
        "inception-v4": Architecture(
            schema="foretrain.models.image_schema:Inception4File",
            spec="foretrain.models.networks.inception4:Inception4",
            build="foretrain.models.networks.inception4:build",
        ),
        "resnet": Architecture(
            schema="foretrain.models.image_schema:ResNetFile",
            spec="foretrain.models.networks.resnet:ResNet",
            build="foretrain.models.networks.resnet:build",
        ),
        "densenet": Architecture(
            schema="foretrain.models.image_schema:DenseNetFile",
            spec="foretrain.models.networks.densenet:DenseNet",
            build="foretrain.models.networks.densenet:build",
        ),
        "mobilenet-v2": Architecture(
            schema="foretrain.models.image_schema:MobileNet2File",
            spec="foretrain.models.networks.mobilenet:MobileNet2",
            build="foretrain.models.networks.mobilenet:build",
        ),
        "shufflenet-v2": Architecture(
            schema="foretrain.models.image_schema:ShuffleNet2File",
            spec="foretrain.models.networks.shufflenet:ShuffleNet2",
            build="foretrain.models.networks.shufflenet:build",
        ),
        "retinanet": Architecture(
            schema="foretrain.models.image_schema:RetinaNetFile",
            spec="foretrain.models.networks.retinanet:RetinaNet",
            build="foretrain.models.networks.retinanet:build",
        ),
        "ssd": Architecture(
            schema="foretrain.models.image_schema:SsdFile",
            spec="foretrain.models.networks.ssd:Ssd",
            build="foretrain.models.networks.ssd:build",
        ),
        "unet3d": Architecture(
            schema="foretrain.models.image_schema:UNet3dFile",
            spec="foretrain.models.networks.unet3d:UNet3d",
            build="foretrain.models.networks.unet3d:build",
        ),
        "timm": Architecture(
            schema="foretrain.models.timm_schema:TimmFile",
            spec="foretrain.models.timm_name:TimmModel",
            build="foretrain.models.trace_timm:build",
        ),
        "traced": Architecture(
            schema="foretrain.models.traced_schema:TracedFile",
            spec="foretrain.models.traced:Traced",
            build="foretrain.models.traced:build",
        ),
        "dlrm": Architecture(
            schema="foretrain.models.sample_schema:DlrmFile",
            spec="foretrain.models.networks.dlrm:Dlrm",
            build="foretrain.models.networks.dlrm:build",
        ),
        "ncf": Architecture(
            schema="foretrain.models.sample_schema:NcfFile",
            spec="foretrain.models.networks.ncf:Ncf",
            build="foretrain.models.networks.ncf:build",
        ),
        "wide-deep": Architecture(
            schema="foretrain.models.sample_schema:WideDeepFile",
            spec="foretrain.models.networks.wide_deep:WideDeep",
            build="foretrain.models.networks.wide_deep:build",
        ),
        "gnmt": Architecture(
            schema="foretrain.models.sample_schema:GnmtFile",
            spec="foretrain.models.networks.gnmt:Gnmt",
            build="foretrain.models.networks.gnmt:build",
        ),
        "deepspeech2": Architecture(
            schema="foretrain.models.sample_schema:DeepSpeech2File",
            spec="foretrain.models.networks.deepspeech2:DeepSpeech2",
            build="foretrain.models.networks.deepspeech2:build",
        ),
    }
)
"""By the word that a profile gives as its `architecture`; without one it is a transformer."""
DEFAULT = "transformer"


def architecture_of(data: dict[str, Any], file: object) -> Architecture:
    """Return the architecture that the data of a profile names.

    Raises:
        ProfileError: for an unknown one.
    """
    name = data.get("architecture", DEFAULT)
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ProfileError(f"{file}: architecture {shortened(name)} is unknown; use one of {known}{nearest(str(name), ARCHITECTURES)}")
    return ARCHITECTURES[name]


def build_model(spec: object) -> Model:
    """Return the model that some dimensions define, of whichever architecture they are."""
    for architecture in ARCHITECTURES.values():
        if architecture.spec == f"{type(spec).__module__}:{type(spec).__qualname__}":
            model: Model = imported(architecture.build)(spec)
            return model
    raise TypeError(f"{type(spec).__name__} is no dimensions of a model")


def imported(where: str) -> Any:
    """Return what `module:name` names."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
