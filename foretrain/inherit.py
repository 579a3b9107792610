"""Profiles put together: `base:` inherits a whole profile, and a part may be a name, an own mapping, or both.

The outcome is one tree of plain data. A number in it is a `Figure`, which keeps its source, so that a figure of the base never
passes for one of the file that inherits it. A figure is replaced whole: a new value without its own source is a fault.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foretrain.errors import ProfileError, UnknownNameError
from foretrain.library import Shelf
from foretrain.yamlfile import is_file, read_mapping, resolved

KINDS = ("datasheet", "measurement", "fit", "memory", "estimate")
ASSUMED = ("memory", "estimate")
Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number as the file writes it, the key of its source, and that source (None where the file declares none such)."""

    value: Any
    key: str | None
    source: Mapping[str, Any] | None
    declared: tuple[str, ...]
    extra: tuple[str, ...] = ()

    @property
    def assumed(self) -> bool:
        """Whether it comes from memory or is an estimate."""
        return self.source is not None and self.source.get("kind") in ASSUMED


class Whole(dict[str, Any]):
    """A profile that was named: laid over another it takes its place, where a mapping written out would merge."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of profile: where its library is and which of its keys are profiles themselves."""

    shelf: Shelf
    parts: Mapping[str, Kind] = field(default_factory=dict)
    stand_in: Mapping[str, str] = field(default_factory=dict)
    """Parts that, left out, are those of another part: a cluster's facility is its node's."""

    def __hash__(self) -> int:
        """Return the hash of the shelf: there is one kind per shelf."""
        return hash(self.shelf)


@dataclass(frozen=True, slots=True)
class Tree:
    """Merged data, and the file that gave each key of it."""

    data: Any
    origins: Mapping[Keys, Path]


def read_tree(kind: Kind, path: Path) -> Tree:
    """Return the profile in `path` with everything it inherits and refers to.

    Raises:
        ProfileError: where a file cannot be read, a base or part is unknown, or files inherit in a circle.
    """
    return _read(kind, path, ())


def _read(kind: Kind, path: Path, trail: tuple[Path, ...]) -> Tree:
    here = resolved(path)
    if here in trail:
        names = " -> ".join(step.name for step in (*trail[trail.index(here) :], here))
        raise ProfileError(f"{path}: inherits itself ({names}); take one base out of the circle")
    # A library file is part of the package and does not change; a user's own may between two calls.
    return read_library(kind, path) if kind.shelf.holds(path) and not trail else _read_file(kind, path, trail)


def _read_file(kind: Kind, path: Path, trail: tuple[Path, ...]) -> Tree:
    return _expand(kind, read_mapping(path), _Place(file=path, trail=(*trail, resolved(path)), sources={}))


@functools.cache
def read_library(kind: Kind, path: Path) -> Tree:
    """Return the profile in a library file, read once."""
    return _read_file(kind, path, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a mapping was written: its file, the files that led to it, and the sources declared around it."""

    file: Path
    trail: tuple[Path, ...]
    sources: Mapping[str, Any]

    def refer(self, kind: Kind, name: Any) -> Tree:
        """Return the profile that this place names."""
        if not isinstance(name, str):
            raise ProfileError(f"{self.file}: base: {name!r} is no name; give a library name or the path of a file")
        try:
            path = kind.shelf.find(name, self.file)
        except UnknownNameError as error:
            raise ProfileError(f"{self.file}: {_as_part(kind, name) or error}") from None
        if not is_file(path):
            raise ProfileError(f"{self.file}: refers to {name!r}, but there is no file {path}; a path in a profile starts at the profile")
        return _read(kind, path, self.trail)


def _as_part(kind: Kind, name: str) -> str:
    """Return the remedy where a name is of a part of this kind of profile, else an empty string."""
    found = next((key for key, part in kind.parts.items() if name in part.shelf.names()), "")
    return f"{name!r} is no {kind.shelf.what}; it goes under `{found}`, as in `{found}: {name}`" if found else ""


def _expand(kind: Kind, raw: Mapping[str, Any], place: _Place) -> Tree:
    """Return the mapping `raw` laid over its base, with every part read."""
    tree = place.refer(kind, raw["base"]) if "base" in raw else Tree({}, {})
    declared = {**place.sources, **_table(tree.data.get("sources")), **_table(raw.get("sources"))}
    place = replace(place, sources=declared)
    for key, value in sorted(raw.items(), key=lambda item: item[0] in kind.stand_in):
        if key in kind.parts:
            over = _part(kind.parts[key], value, place)
            tree = _lay(_stood_in(tree, kind, key), key, over, replaces=_names_a_profile(value))
        elif key != "base":
            data = value if key == "sources" else _figures(value, declared)
            tree = _lay(tree, key, Tree(data, _leaves(data, place.file)), replaces=False)
    return tree


def _stood_in(tree: Tree, kind: Kind, key: str) -> Tree:
    """Return the tree with the part that stands in for `key` put there, where it has none of its own."""
    owner = tree.data.get(kind.stand_in.get(key, ""))
    if tree.data.get(key) is not None or not isinstance(owner, dict) or key not in owner:
        return tree
    origins = {keys[1:]: file for keys, file in tree.origins.items() if keys[:2] == (kind.stand_in[key], key)}
    return Tree({**tree.data, key: owner[key]}, {**tree.origins, **origins})


def _part(kind: Kind, value: Any, place: _Place) -> Tree:
    """Return a part of a profile: another profile by name, or a mapping that may inherit one."""
    if isinstance(value, str):
        return place.refer(kind, value)
    return _expand(kind, value, place) if isinstance(value, dict) else Tree(value, {(): place.file})


def _names_a_profile(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and "base" in value)


def _figures(value: Any, sources: Mapping[str, Any]) -> Any:
    """Return `value` with every {value:, source:} turned into a figure."""
    if not isinstance(value, dict):
        return value
    if "value" not in value:
        return {str(key): _figures(inner, sources) for key, inner in value.items()}
    key = value.get("source")
    source = sources.get(key) if isinstance(key, str) else None
    extra = tuple(str(name) for name in value if name not in ("value", "source"))
    return Figure(value["value"], key, source if isinstance(source, dict) else None, tuple(sources), extra)


def _leaves(data: Any, file: Path) -> dict[Keys, Path]:
    """Return `file` as the origin of every key of `data`, itself included."""
    found: dict[Keys, Path] = {(): file}
    if isinstance(data, dict):
        for key, value in data.items():
            found |= {(str(key), *rest): file for rest in _leaves(value, file)}
    return found


def _lay(tree: Tree, key: str, over: Tree, *, replaces: bool) -> Tree:
    """Return `tree` with `over` at `key`: mappings merge, everything else (and a newly named profile) replaces."""
    data = Whole(over.data) if replaces and isinstance(over.data, dict) else over.data
    under = tree.data.get(key)
    gone = tuple((key, *keys) for keys in _wholes(data))
    kept = {keys: file for keys, file in tree.origins.items() if not any(keys[: len(one)] == one for one in gone)}
    origins = {(key, *keys): file for keys, file in over.origins.items()}
    return Tree({**tree.data, key: data if under is None else _merge(under, data)}, {**kept, **origins})


def _merge(under: Any, over: Any) -> Any:
    if isinstance(over, Whole) or not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return {**under, **{key: _merge(under[key], value) if key in under else value for key, value in over.items()}}


def _wholes(data: Any) -> list[Keys]:
    """Return where in `data` profiles stand that take the place of others."""
    if isinstance(data, Whole):
        return [()]
    return [(key, *keys) for key, value in data.items() for keys in _wholes(value)] if isinstance(data, dict) else []


def _table(sources: Any) -> Mapping[str, Any]:
    return sources if isinstance(sources, dict) else {}
