"""Ops as plain data, and back: each by a word and its fields, those left out that are as they usually are."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from foretrain.errors import ModelError, nearest, shortened
from foretrain.models.attention import CoreAttention
from foretrain.models.convolution import Conv
from foretrain.models.cross_attention import CrossAttention
from foretrain.models.embedding import Embedding
from foretrain.models.loss import CrossEntropy
from foretrain.models.matmul import Linear
from foretrain.models.model import Step
from foretrain.models.moves import Amount, Moves, Pass
from foretrain.models.ops import Boundary
from foretrain.models.product import Product, Size
from foretrain.models.recurrent import Recurrent
from foretrain.models.stream import Streaming, Traffic

STEPS: Mapping[str, type[Any]] = MappingProxyType({
    "linear": Linear, "conv": Conv, "attention": CoreAttention, "cross_attention": CrossAttention, "embedding": Embedding,
    "cross_entropy": CrossEntropy, "moves": Moves, "product": Product, "recurrent": Recurrent, "streaming": Streaming,
    "boundary": Boundary,
})  # fmt: skip
LARGEST = 10**18
_LISTED = (Amount, Pass, Size, Traffic)
"""Parts of an op that are written as lists, without the zeros at their ends."""
WORDS: Mapping[Any, str] = MappingProxyType({kind: word for word, kind in STEPS.items()})


def step_data(step: Step) -> dict[str, Any]:
    """Return a step as plain data.

    Raises:
        ModelError: for a kind of op that a profile cannot hold.
    """
    word = WORDS.get(type(step))
    if word is None:
        raise ModelError(f"{step.name}: {type(step).__name__} is no op that a profile holds; it holds {', '.join(STEPS)}")
    fields = dataclasses.fields(STEPS[word])
    given = {one.name: getattr(step, one.name) for one in fields if getattr(step, one.name) != one.default}
    return {"op": word, **{name: _plain(value) for name, value in given.items()}}


def step_of(data: Any) -> Step:
    """Return the step that plain data describe.

    Raises:
        ModelError: naming the op, the field and what it may be.
    """
    if not isinstance(data, Mapping):
        raise ModelError(f"{shortened(data)} is no op; write `op`, `name` and its fields")
    word, where = data.get("op"), f"op {shortened(data.get('name', data.get('op')))}"
    if not isinstance(word, str) or word not in STEPS:
        raise ModelError(f"{where}: op {shortened(word)} is unknown; use one of {', '.join(STEPS)}{nearest(str(word), STEPS)}")
    kinds, needed = _fields(word)
    given = {str(key): value for key, value in data.items() if key != "op"}
    for name in (*given, *needed):
        if name not in kinds:
            raise ModelError(f"{where}: {word} has no field {shortened(name)}{nearest(name, kinds)}")
        if name not in given:
            raise ModelError(f"{where}: {word} needs {name}")
    return typing.cast(Step, STEPS[word](**{name: _read(kinds[name], value, f"{where}: {name}") for name, value in given.items()}))


@functools.cache
def _fields(word: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the types of an op's fields, and the names of those that must be given."""
    kind = STEPS[word]
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    return {one.name: hints[one.name] for one in fields}, tuple(one.name for one in fields if one.default is dataclasses.MISSING)


def _plain(value: Any) -> Any:
    if isinstance(value, _LISTED):
        parts = [_plain(getattr(value, one.name)) for one in dataclasses.fields(value)]
        while parts and parts[-1] in (0, []):
            parts.pop()
        return parts
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _read(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (types.UnionType, typing.Union):
        if value is None and type(None) in get_args(hint):
            return None
        return _read(next(one for one in get_args(hint) if one is not type(None)), value, where)
    if get_origin(hint) is Literal:
        return _word(get_args(hint), value, where)
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), _list(value, where), where)
    if hint in _LISTED:
        return _listed(hint, value, where)
    return _SCALARS[hint](value, where)


def _tuple(kinds: tuple[Any, ...], parts: list[Any], where: str) -> tuple[Any, ...]:
    """Return a tuple of any length, `(int, ...)`, or of one kind a place, `(str, int)`."""
    repeated = kinds[0] if kinds[-1] is Ellipsis else None
    if repeated is None and len(parts) != len(kinds):
        raise ModelError(f"{where} has {len(parts)} parts; {len(kinds)} are expected")
    return tuple(_read(kinds[place] if repeated is None else repeated, one, where) for place, one in enumerate(parts))


def _listed(kind: Any, value: Any, where: str) -> Any:
    kinds = typing.get_type_hints(kind)
    parts = _list(value, where)
    if len(parts) > len(kinds):
        raise ModelError(f"{where} has {len(parts)} parts; {kind.__name__} has {', '.join(kinds)}")
    filled = [*parts, *[0 if hint in _SCALARS else [] for hint in list(kinds.values())[len(parts) :]]]
    return kind(**{name: _read(hint, one, where) for (name, hint), one in zip(kinds.items(), filled, strict=True)})


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ModelError(f"{where} is {shortened(value)}, no list; write it in square brackets")
    return value


def _word(known: tuple[str, ...], value: Any, where: str) -> str:
    if value not in known:
        raise ModelError(f"{where} is {shortened(value)}; use one of {', '.join(known)}{nearest(str(value), known)}")
    return str(value)


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ModelError(f"{where} is {shortened(value)}; give a whole number from 0 to {LARGEST:,}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= LARGEST:
        raise ModelError(f"{where} is {shortened(value)}; give a number from 0 to {LARGEST:,}")
    return value


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ModelError(f"{where} is {shortened(value)}; give true or false")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ModelError(f"{where} is {shortened(value)}; give a word")
    return value


_SCALARS: Mapping[Any, Callable[[Any, str], Any]] = MappingProxyType({int: _whole, float: _number, bool: _truth, str: _text})
