"""Fields of nested frozen dataclasses set from text: what `--set node.accelerator.power.limit_w="500 W"` does."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from foretrain.errors import ForetrainError, UsageError, nearest
from foretrain.fields import count_bounds, read_count, read_number, unit_of, words_of

Profile = TypeVar("Profile")
NONE = ("none", "null")
"""What unsets a field that may be left open."""
PROVENANCE = "assumed"
"""The field that says which others nobody stated: it follows from them and is never set."""


def override(profile: Profile, path: str, value: str) -> Profile:
    """Return `profile` with the field at the dotted `path` set to what `value` says, read by the field's type and unit.

    A number of a field with a unit may leave the unit out: it is then taken to be in the field's own.

    Raises:
        UsageError: where there is no such field or `value` does not suit it.
    """
    return apply_overrides(profile, {path: value})


def apply_overrides(profile: Profile, values: Mapping[str, str], root: str = "") -> Profile:
    """Return `profile` with every path of `values` set, all at once, so that fields which must agree can change together.

    `root` is what the user calls the profile; errors put it before the path. What is set is no longer among what was assumed.

    Raises:
        UsageError: where there is no such field or a value does not suit it.
    """
    if not values:
        return profile
    above = (root,) if root else ()
    return typing.cast(Profile, _set(profile, _tree(values, root), _Spot(above, "", type(profile))))


@dataclasses.dataclass(frozen=True, slots=True)
class _Spot:
    """Where the walk stands: the keys so far, the field whose name bears the unit, and the type of what is there."""

    above: tuple[str, ...]
    field: str
    kind: Any

    @property
    def path(self) -> str:
        return ".".join(self.above)


def _tree(values: Mapping[str, str], root: str) -> dict[str, Any]:
    """Return `{"a.b": "1", "a.c": "2"}` as `{"a": {"b": "1", "c": "2"}}`."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        at, (*groups, last) = tree, path.split(".")
        for group in groups:
            at = at.setdefault(group, {})
            if isinstance(at, str):
                break
        if isinstance(at, str) or isinstance(at.get(last), dict):
            raise UsageError(f"--set {root}{'.' * bool(root)}{path}: is set both whole and in part; leave out one of the two")
        at[last] = value
    return tree


def _set(at: Any, values: Any, spot: _Spot) -> Any:
    if isinstance(values, str):
        return _checked(lambda: _read(at, spot, values), spot, ())
    if dataclasses.is_dataclass(at) and not isinstance(at, type):
        return _changed(at, values, spot)
    if isinstance(at, Mapping):
        kind = typing.get_args(spot.kind)[-1]
        spots = {key: _inner(key, list(at), spot, spot.field, kind) for key in values}
        return {**at, **{key: _set(at[key], inner, spots[key]) for key, inner in values.items()}}
    below = ".".join(_first_path(values))
    raise UsageError(f"--set {spot.path}.{below}: {spot.path} is a value, not a group of fields; leave out '.{below}'")


def _changed(at: Any, values: Mapping[str, Any], spot: _Spot) -> Any:
    """Return the dataclass `at` with its fields set; what it refuses is said of all of them."""
    hints, known = typing.get_type_hints(type(at)), _settable(at)
    spots = {key: _inner(key, known, spot, key, hints.get(key)) for key in values}
    new = {key: _set(getattr(at, key), inner, spots[key]) for key, inner in values.items()}
    if PROVENANCE in hints:
        given = set(_paths(values))
        new[PROVENANCE] = tuple(path for path in getattr(at, PROVENANCE) if path not in given)
    return _checked(lambda: dataclasses.replace(at, **new), spot, tuple(_paths(values)))


def _inner(key: str, known: list[str], spot: _Spot, field: str, kind: Any) -> _Spot:
    if key not in known:
        what = spot.path or "the profile"
        wanted = ".".join((*spot.above, key))
        raise UsageError(f"--set {wanted}: {what} has no field {key!r}{nearest(key, known) or '; it has ' + ', '.join(known)}")
    return _Spot((*spot.above, key), field, kind)


def _settable(at: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(at) if field.name != PROVENANCE]


def _checked(make: Callable[[], Any], spot: _Spot, below: tuple[str, ...]) -> Any:
    """Return what `make` makes; an error begins with the paths that were set."""
    try:
        return make()
    except UsageError:
        raise
    except ForetrainError as error:
        paths = ", ".join(".".join((*spot.above, path)) for path in below) or spot.path
        raise UsageError(f"--set {paths}: {error}") from None


def _paths(values: Any) -> list[str]:
    """Return the dotted paths of the leaves."""
    if isinstance(values, str):
        return [""]
    return [f"{key}.{path}".rstrip(".") for key, inner in values.items() for path in _paths(inner)]


def _first_path(values: Mapping[str, Any]) -> tuple[str, ...]:
    key, inner = next(iter(values.items()))
    return (key,) if isinstance(inner, str) else (key, *_first_path(inner))


def _read(at: Any, spot: _Spot, value: str) -> Any:
    if dataclasses.is_dataclass(at) or isinstance(at, Mapping):
        inner = list(at) if isinstance(at, Mapping) else _settable(at)
        raise UsageError(f"--set {spot.path}: is a group of fields; set one of {', '.join(f'{spot.path}.{name}' for name in inner)}")
    if _may_be_none(spot.kind) and value.lower() in NONE:
        return None
    return _scalar(_concrete(spot.kind), spot, value)


def _may_be_none(kind: Any) -> bool:
    return types.NoneType in typing.get_args(kind)


def _concrete(kind: Any) -> Any:
    """Return the type of `kind` without its None."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(option for option in typing.get_args(kind) if option is not types.NoneType)
    return kind


def _scalar(kind: Any, spot: _Spot, value: str) -> Any:
    readers: dict[Any, Callable[[], Any]] = {
        bool: lambda: _truth(spot, value),
        int: lambda: read_count(value, *count_bounds(spot.field)),
        float: lambda: _number(spot, value),
        str: lambda: _word(spot, value),
        Any: lambda: _anything(spot, value),
    }
    if kind in readers:
        return readers[kind]()
    if typing.get_origin(kind) in (frozenset, tuple) and typing.get_args(kind)[0] in (str, float, int):
        return _several(kind, spot, value)
    raise UsageError(f"--set {spot.path}: cannot be set from the command line; write a profile with `base:` and give it there")


def _anything(spot: _Spot, value: str) -> Any:
    """Return a value of a field that may hold any, by JSON's rules; what is no JSON is a word."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return _word(spot, value)


def _number(spot: _Spot, value: str) -> float:
    unit = unit_of(spot.field)
    return read_number(spot.field, f"{value} {unit}" if unit != "1" and _is_bare(value) else value)


def _is_bare(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _word(spot: _Spot, value: str) -> str:
    known = words_of(spot.field)
    if known and value not in known:
        raise UsageError(f"--set {spot.path}: {value!r} is unknown; use one of {', '.join(known)}{nearest(value, known)}")
    if not value or not value.isprintable():
        raise UsageError(f"--set {spot.path}: {value!r} is no text of one line; write some after the equals sign")
    return value


def _several(kind: Any, spot: _Spot, value: str) -> Any:
    words = [word.strip() for word in value.split(",") if word.strip()]
    one = typing.get_args(kind)[0]
    items = [_scalar(one, spot, word) for word in words]
    return typing.get_origin(kind)(items)


def _truth(spot: _Spot, value: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if value.lower() not in words:
        raise UsageError(f"--set {spot.path}: {value!r} is neither true nor false; write one of them")
    return words[value.lower()]
