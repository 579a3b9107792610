"""The architectures of timm by name, as a kind of profile: `timm:resnet50`, or a file with `architecture: timm`."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "timm:"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmModel:
    """An architecture of timm, at its own image size or another."""

    architecture: str
    image_size: int | None = None
    name: str = ""
    key: str = ""


def timm_model(name: str) -> TimmModel:
    """Return what `timm:NAME` means."""
    architecture = name.removeprefix(PREFIX)
    return TimmModel(architecture=architecture, name=architecture, key=name)
