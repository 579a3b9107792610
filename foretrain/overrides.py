"""One field of nested frozen dataclasses set from text: what `--set node.accelerator.power.limit_w="500 W"` does."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from foretrain.errors import ForetrainError, UsageError, nearest
from foretrain.fields import read_count, read_number, unit_of

Profile = TypeVar("Profile")


def override(profile: Profile, path: str, value: str) -> Profile:
    """Return `profile` with the field at the dotted `path` set to what `value` says, read by the field's type and unit.

    A number of a field with a unit may leave the unit out: it is then taken to be in the field's own.

    Raises:
        UsageError: where there is no such field or `value` does not suit it.
    """
    keys = path.split(".")
    try:
        return typing.cast(Profile, _set(profile, keys, _Spot((), "", type(profile)), value))
    except UsageError:
        raise
    except ForetrainError as error:
        raise UsageError(f"--set {path}: {error}") from None


def apply_overrides(profile: Profile, values: Mapping[str, str]) -> Profile:
    """Return `profile` with every path of `values` set, in order."""
    for path, value in values.items():
        profile = override(profile, path, value)
    return profile


@dataclasses.dataclass(frozen=True, slots=True)
class _Spot:
    """Where the walk stands: the keys so far, the field whose name bears the unit, and the type of what is there."""

    above: tuple[str, ...]
    field: str
    kind: Any

    @property
    def path(self) -> str:
        return ".".join(self.above)


def _set(at: Any, keys: list[str], spot: _Spot, value: str) -> Any:
    if not keys:
        return _read(at, spot, value)
    key, rest, above = keys[0], keys[1:], (*spot.above, keys[0])
    if dataclasses.is_dataclass(at) and not isinstance(at, type):
        _known(key, [field.name for field in dataclasses.fields(at)], spot)
        inner = _Spot(above, key, typing.get_type_hints(type(at))[key])
        return dataclasses.replace(at, **{key: _set(getattr(at, key), rest, inner, value)})
    if isinstance(at, Mapping):
        _known(key, list(at), spot)
        return {**at, key: _set(at[key], rest, _Spot(above, spot.field, typing.get_args(spot.kind)[-1]), value)}
    below = ".".join(keys)
    raise UsageError(f"--set {spot.path}.{below}: {spot.path} is a value, not a group of fields; leave out '.{below}'")


def _known(key: str, known: list[str], spot: _Spot) -> None:
    if key not in known:
        raise UsageError(f"--set: {spot.path or 'the profile'} has no field {key!r}{nearest(key, known) or '; it has ' + ', '.join(known)}")


def _read(at: Any, spot: _Spot, value: str) -> Any:
    if dataclasses.is_dataclass(at) or isinstance(at, Mapping):
        inner = list(at) if isinstance(at, Mapping) else [field.name for field in dataclasses.fields(at)]
        raise UsageError(f"--set {spot.path}: is a group of fields; set one of {', '.join(f'{spot.path}.{name}' for name in inner)}")
    return _scalar(_concrete(spot.kind), spot, value)


def _concrete(kind: Any) -> Any:
    """Return the type of `kind` without its None."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return next(option for option in typing.get_args(kind) if option is not types.NoneType)
    return kind


def _scalar(kind: Any, spot: _Spot, value: str) -> Any:
    readers: dict[Any, Callable[[], Any]] = {
        bool: lambda: _truth(spot, value),
        int: lambda: read_count(value),
        float: lambda: _number(spot, value),
        str: lambda: value,
    }
    if kind in readers:
        return readers[kind]()
    if typing.get_origin(kind) in (frozenset, tuple) and typing.get_args(kind)[0] in (str, float):
        return _several(kind, spot, value)
    raise UsageError(f"--set {spot.path}: cannot be set from the command line; write a profile with `base:` and give it there")


def _number(spot: _Spot, value: str) -> float:
    unit = unit_of(spot.field)
    return read_number(spot.field, f"{value} {unit}" if unit != "1" and _is_bare(value) else value)


def _is_bare(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _several(kind: Any, spot: _Spot, value: str) -> Any:
    words = [word.strip() for word in value.split(",") if word.strip()]
    items = words if typing.get_args(kind)[0] is str else [_number(spot, word) for word in words]
    return typing.get_origin(kind)(items)


def _truth(spot: _Spot, value: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if value.lower() not in words:
        raise UsageError(f"--set {spot.path}: {value!r} is neither true nor false; write one of them")
    return words[value.lower()]
