"""Everything wrong with a profile, said at once: file, line, key, value, what was expected, the nearest valid name."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from foretrain.errors import ForetrainError, ProfileError, nearest, shortened
from foretrain.fields import unit_of
from foretrain.inherit import Figure, Keys, Tree
from foretrain.yamlfile import line_of

Model = TypeVar("Model", bound=BaseModel)
_WANTED = {
    "string": "no text of one line; write a word or a sentence, in quotes where it looks like a number or a date",
    "bool": "neither true nor false; write one of them",
    "dict": "no mapping; write keys and values below it",
    "model": "no mapping; write keys and values below it",
    "list": "no list; write it in square brackets",
    "tuple": "no list; write it in square brackets",
    "int": "no whole number; write one",
    "float": "no number; write one",
    "greater": "out of range; give a number above 0",
    "less": "out of range; give a number below 1",
}
"""What to say of a value by the start of pydantic's name for its fault."""


def validate(model: type[Model], tree: Tree, file: Path) -> Model:
    """Return the tree as `model`.

    Raises:
        ProfileError: with every fault; its message holds the first two.
    """
    try:
        return model.model_validate(tree.data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        faults = tuple(_say(model, dict(one), tree, file) for one in found)
    more = f"\n... and {len(faults) - 2} more faults" if len(faults) > 2 else ""
    raise ProfileError("\n".join(faults[:2]) + more, faults)


def _say(model: type[BaseModel], error: dict[str, Any], tree: Tree, file: Path) -> str:
    keys = tuple(str(key) for key in error["loc"] if key != "[key]")
    origin = _origin(keys, tree, file)
    return f"{origin}{_line(origin, keys)}: {'.'.join(keys) or 'profile'}: {_reason(model, error, keys)}"


def _origin(keys: Keys, tree: Tree, file: Path) -> Path:
    """Return the file that gave the value, or the one that was asked for where nothing gave it."""
    return tree.origins.get(keys, file)


def _line(file: Path, keys: Keys) -> str:
    """Return `:12`, the line of the innermost key that the file itself writes; a part's own file starts at the part."""
    for start in range(len(keys)):
        try:
            line = line_of(file, keys[start:])
        except ForetrainError:
            return ""
        if line is not None:
            return f":{line}"
    return ""


def _reason(model: type[BaseModel], error: dict[str, Any], keys: Keys) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        known = known_keys(model, keys[:-1])
        return f"unknown key{nearest(keys[-1], known) or '; use one of ' + ', '.join(known)}"
    if kind == "missing":
        name, needed = _field(model, keys)
        unit = unit_of(name)
        return "is missing; give it" + ("" if unit == "1" else f" in {unit}, with its source") + (f"; {needed} need it" if needed else "")
    if kind == "value_error":
        return str(error["ctx"]["error"])
    wanted = next((words for start, words in _WANTED.items() if kind.startswith(start)), "")
    return f"{_shown(error['input'])} is wrong: {f'it is {wanted}' if wanted else error['msg']}"


def _shown(value: Any) -> str:
    """Return a value as the file has it, shortened where it is long."""
    return shortened(value.value if isinstance(value, Figure) else value)


def _field(model: type[BaseModel], keys: Keys) -> tuple[str, str]:
    """Return the name of the field at `keys` and the calculations that need it, as its description says."""
    inner = _model_at(model, keys[:-1])
    fields = inner.model_fields.items() if inner else ()
    return next(((name, field.description or "") for name, field in fields if (field.alias or name) == keys[-1]), ("", ""))


def known_keys(model: type[BaseModel], keys: Sequence[str]) -> list[str]:
    """Return the keys that a profile may have at `keys`."""
    inner = _model_at(model, keys)
    return [field.alias or name for name, field in inner.model_fields.items()] if inner else []


def _model_at(model: type[BaseModel], keys: Sequence[str]) -> type[BaseModel] | None:
    """Return the model of the mapping at `keys`; the free keys of a dict of models are stepped over."""
    at: type[BaseModel] | None = model
    through_dict = False
    for key in keys:
        if through_dict or at is None:
            through_dict = False
            continue
        field = next((field for name, field in at.model_fields.items() if (field.alias or name) == key), None)
        if field is None:
            return None
        at, through_dict = _inner(field.annotation)
    return at


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    arguments = typing.get_args(annotation)
    candidates = [annotation, *arguments]
    found = next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return found, typing.get_origin(annotation) is dict
