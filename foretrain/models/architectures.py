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
