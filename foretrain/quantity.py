"""Numbers of a profile as pydantic reads them: each with its unit, its bounds and its source.

Only the loaders import this module, inside their functions, so that `import foretrain` stays light.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema

from foretrain.errors import nearest
from foretrain.fields import bounds_of, read_count, read_number, unit_of
from foretrain.inherit import KINDS, Figure

_STRIPPED = ("_flop_per_s", "_bytes_per_s", "_j_per_flop", "_j_per_byte", "_w_per_accelerator", "_bytes", "_s", "_w", "_hz")


def key_of(name: str) -> str:
    """Return the key that a profile uses for a field: its name without the unit, which the value carries."""
    return next((name.removesuffix(suffix) for suffix in _STRIPPED if name.endswith(suffix)), name)


def figure_schema(value: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a figure: a value of this schema, and its source."""
    properties = {"value": value, "source": {"type": "string", "description": "a key of the table `sources`"}}
    return {"type": "object", "properties": properties, "required": ["value", "source"], "additionalProperties": False}


def written(given: Any) -> Any:
    """Return the value of a figure whose source is in order."""
    if not isinstance(given, Figure):
        raise ValueError(f"a number needs its source; write {{value: {given}, source: KEY}}, KEY being one of the table `sources`")
    if given.key is None:
        raise ValueError(f"{given.value!r} has no source; add `source: KEY`, KEY being one of the table `sources`")
    if given.key not in given.declared:
        raise ValueError(f"source {given.key!r} is not in the table `sources`{nearest(str(given.key), given.declared)}")
    if given.extra:
        raise ValueError(f"unknown key {given.extra[0]!r} beside `value` and `source`")
    return given.value


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is no number; write one with its unit, such as '3.35 TB/s'")
    return str(value)


def _number(given: Any, info: ValidationInfo) -> float:
    return read_number(str(info.field_name), _text(written(given)))


def _count(given: Any) -> int:
    return read_count(_text(written(given)))


def _numbers(given: Any, info: ValidationInfo) -> tuple[float, ...]:
    return tuple(read_number(str(info.field_name), _text(value)) for value in _list(written(given)))


def _pairs(given: Any) -> tuple[tuple[int, int], ...]:
    pairs = [[read_count(_text(size), greatest=65536) for size in _list(pair)] for pair in _list(written(given))]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{written(given)!r} is no list of pairs; write it as [[256, 128], [128, 128]]")
    return tuple((rows, columns) for rows, columns in pairs)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{value!r} is no list; write it in square brackets")
    return value


_SCALAR = {"type": ["string", "number"]}
Number = Annotated[float, BeforeValidator(_number), WithJsonSchema(figure_schema(_SCALAR))]
Count = Annotated[int, BeforeValidator(_count), WithJsonSchema(figure_schema({"type": ["string", "integer"]}))]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers), WithJsonSchema(figure_schema({"type": "array", "items": _SCALAR}))]
_PAIRS = {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}}
Pairs = Annotated[tuple[tuple[int, int], ...], BeforeValidator(_pairs), WithJsonSchema(figure_schema(_PAIRS))]


def one_of(*known: str) -> Any:
    """Return the type of a word that must be one of `known`; the nearest is offered for any other."""
    return Annotated[str, BeforeValidator(functools.partial(_known, known=known)), Field(json_schema_extra={"enum": list(known)})]


def _known(word: Any, known: tuple[str, ...]) -> str:
    if not isinstance(word, str) or word not in known:
        raise ValueError(f"{word!r} is unknown; use one of {', '.join(known)}{nearest(str(word), known)}")
    return word


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Add to a JSON schema the unit of each number and the parts that may be named instead of written out."""
    properties = schema.get("properties", {})
    for name, field in model.model_fields.items():
        shape, unit = properties[field.alias or name], unit_of(name)
        if unit != "1":
            shape["description"] = f"in {unit}, with any prefix: {bounds_of(name)}"
    for part in getattr(model, "PARTS", ()):
        if part in properties:
            properties[part] = {"anyOf": [{"type": "string", "description": "a library name or the path of a file"}, properties[part]]}


_EXTRA: Callable[[dict[str, Any], type[BaseModel]], None] = _describe


class Strict(BaseModel):
    """A mapping of a profile: unknown keys are faults, and keys are field names without their unit."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=key_of, json_schema_extra=_EXTRA)


class Source(Strict):
    """Where figures come from. A fit also says when and on what it was made and how far it is off."""

    title: str
    kind: one_of(*KINDS)  # type: ignore[valid-type]
    note: str = ""
    date: Any = None
    device: str = ""
    versions: dict[str, str] = {}
    residuals: dict[str, Any] = {}


class ProfileFile(Strict):
    """What every profile has: a name, and the sources of its figures."""

    PARTS: ClassVar[tuple[str, ...]] = ()
    name: str = Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")
    sources: dict[str, Source] = {}
