"""A module from the name of a function that builds it, and example inputs from their shapes: what the command line gives."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from foretrain.errors import UsageError, nearest, shortened
from foretrain.models.trace_shapes import META

LARGEST_SIDE = 10**9
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool", "complex64")


def build_module(where: str) -> torch.nn.Module:
    """Return what the factory at `package.module:factory` builds; it runs code of the user's, by design.

    It is built without memory for its weights where that works, else as it is.

    Raises:
        UsageError: where there is no such factory, it fails, or it builds no module.
    """
    factory = _factory(where)
    if isinstance(factory, torch.nn.Module):
        return factory
    if not callable(factory):
        raise UsageError(f"{where} is {shortened(factory)}, which builds nothing; give a function or class that returns a torch.nn.Module")
    try:
        with META:
            module = factory()
    except Exception:  # code of the user's that looks at values while it builds
        module = _built(where, factory)
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{where} returned {shortened(module)}, no torch.nn.Module; return the module itself")
    return module


def whole_module(where: str) -> torch.nn.Module:
    """Return what the factory at `package.module:factory` builds, with the values of its weights: to be trained, not traced.

    Raises:
        UsageError: where there is no such factory, it fails, or it builds no module.
    """
    found = _factory(where)
    module = found if isinstance(found, torch.nn.Module) or not callable(found) else _built(where, found)
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{where} gives {shortened(module)}, no torch.nn.Module; give a function or class that returns one")
    return module


def example(shape: str, dtype: str) -> Any:
    """Return an input without data, such as `2x3x224x224` of `float32`.

    Raises:
        UsageError: for what is no shape or no dtype.
    """
    if dtype not in DTYPES:
        raise UsageError(f"--input-dtype {shortened(dtype)} is unknown; use one of {', '.join(DTYPES)}{nearest(dtype, DTYPES)}")
    sides = shape.lower().split("x")
    if not all(side.isdecimal() and 1 <= int(side[:20]) <= LARGEST_SIDE for side in sides):
        raise UsageError(f"--input {shortened(shape)} is no shape; give whole numbers with x between, samples first, such as 2x3x224x224")
    return torch.empty([int(side) for side in sides], dtype=getattr(torch, dtype), device=META)


def examples(shapes: Sequence[str], dtypes: Sequence[str]) -> list[Any]:
    """Return one input a shape; one dtype is that of all, none is float32.

    Raises:
        UsageError: where there are neither as many dtypes as shapes, nor one.
    """
    if not shapes:
        raise UsageError("no --input; give the shape of each example input, samples first, such as --input 2x3x224x224")
    if len(dtypes) not in (0, 1, len(shapes)):
        raise UsageError(f"{len(dtypes)} --input-dtype for {len(shapes)} --input; give one for all, or one for each in the same order")
    each = list(dtypes) * len(shapes) if len(dtypes) == 1 else list(dtypes) or ["float32"] * len(shapes)
    return [example(shape, dtype) for shape, dtype in zip(shapes, each, strict=True)]


def _factory(where: str) -> Any:
    name, colon, path = where.partition(":")
    if not colon or not name or not path:
        raise UsageError(f"{shortened(where)} names no factory; write package.module:factory, such as torchvision.models:resnet50")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as python -m does, so that a module beside the user is found
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = "" if error.name == name else f" (it imports {error.name}, which is missing)"
        raise UsageError(f"{where}: there is no module {name}{missing}; give one that python finds from here") from error
    except Exception as error:
        raise UsageError(f"{where}: importing {name} failed: {_said(error)}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{where}: {name} has no {shortened(part)}{nearest(part, dir(found))}")
        found = getattr(found, part)
    return found


def _built(where: str, factory: Any) -> Any:
    try:
        return factory()
    except Exception as error:
        raise UsageError(f"{where} failed as it was called without arguments: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
