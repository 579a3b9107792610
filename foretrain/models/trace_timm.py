"""Models of timm by name, traced at an image size; needs the extra `timm`."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from foretrain.errors import ModelError, UnknownNameError, nearest, shortened
from foretrain.models.model import Model
from foretrain.models.timm_name import TimmModel
from foretrain.models.trace_module import trace_module

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_DETECTION = {"nms": _BOXES, "qnms": _BOXES}
"""Ops of torchvision's binary part that it describes the shapes of as it is imported."""


@functools.lru_cache(maxsize=64)
def build(spec: TimmModel) -> Model:
    """Return the model of a timm architecture; `rebuild` traces it at other image sizes. Each is traced once.

    Raises:
        ModelError: where timm is not installed, or the architecture cannot take the size.
        UnknownNameError: where timm has no such architecture.
    """
    timm = imported()
    _refuse_unknown(timm, spec.architecture)
    module, size = _module(timm, spec)
    example = torch.empty((2, int(module.default_cfg["input_size"][0]), size, size), device="meta")
    model = trace_module(module, example, loss=None, name=spec.name or spec.architecture, item="image")
    return replace(model, key=spec.key or spec.name, rebuild=partial(_resized, spec))


@functools.cache
def imported() -> Any:
    """Return the module timm.

    Raises:
        ModelError: where it is not installed or does not run.
    """
    _declare_detection()
    try:
        import timm  # noqa: PLC0415  # an extra, and slow to import
    except ImportError as error:
        raise ModelError(f"models of timm need the extra timm ({error}); install it: pip install 'foretrain[timm]'") from error
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"timm cannot be imported ({first}); install torch and torchvision releases that belong together") from error
    return timm


def _declare_detection() -> None:
    """Declare the detection ops of torchvision where its binary part does not load.

    timm imports torchvision for its image transforms, and a torchvision built for another release of torch fails on them; no
    classifier runs one.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch's
    for name, schema in _DETECTION.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + schema)  # type: ignore[no-untyped-call]  # torch's
    _kept.append(library)


_kept: list[Any] = []
"""A declaration lasts as long as its library object."""


def _refuse_unknown(timm: Any, name: str) -> None:
    known = timm.list_models()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecated name says so at each use
        if timm.is_model(name.split(".", maxsplit=1)[0]):
            return
    raise UnknownNameError(f"timm {timm.__version__} has no architecture {shortened(name)}{nearest(name, known)}")


def _module(timm: Any, spec: TimmModel) -> tuple[Any, int]:
    """Return the architecture without weights, and the size of its images."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        try:
            module = timm.create_model(spec.architecture)
            own = int(module.default_cfg["input_size"][-1])
            size = spec.image_size or own
            if size != own and hasattr(module, "patch_embed"):
                # Tables of positions are made for one size, which such an architecture is told.
                module = _told(timm, spec.architecture, size) or module
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            first = " ".join(str(error).split())[:160]
            raise ModelError(f"timm:{spec.architecture} cannot be built for images of {spec.image_size}: {first}") from error
    return module, size


def _told(timm: Any, name: str, size: int) -> Any:
    try:
        return timm.create_model(name, img_size=size)
    except TypeError:
        return None


def _resized(spec: TimmModel, image_size: int) -> Model:
    return build(replace(spec, image_size=image_size))
