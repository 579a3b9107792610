"""Where each figure of a profile comes from, under the name its dataclass gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from foretrain.inherit import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """One figure: its path in the dataclass, the text of the profile, and its source."""

    path: str
    written: str
    kind: str
    title: str
    note: str

    @property
    def assumed(self) -> bool:
        """Whether it comes from memory or is an estimate."""
        return self.kind in ("memory", "estimate")


def provenance(data: Mapping[str, Any], model: BaseModel) -> tuple[Provenance, ...]:
    """Return every figure of `data`, of which `model` is the validated form, in the file's order."""
    return tuple(_one(path, figure) for path, figure in _walk(data, model, ""))


def assumed(data: Mapping[str, Any], model: BaseModel) -> tuple[str, ...]:
    """Return the paths of the figures whose source is memory or an estimate."""
    return tuple(path for path, figure in _walk(data, model, "") if figure.assumed)


# The profile keeps capacity and bandwidth with the memory; the dataclass has them beside it.
_MOVED = {"memory.capacity_bytes": "memory_bytes", "memory.bandwidth_bytes_per_s": "memory_bytes_per_s"}


def _walk(data: Mapping[str, Any], model: Any, above: str) -> Iterator[tuple[str, Figure]]:
    names = {field.alias or name: name for name, field in type(model).model_fields.items()} if isinstance(model, BaseModel) else {}
    for key, value in data.items():
        name = names.get(key, key)
        path = above + name
        if isinstance(value, Figure):
            yield _moved(path), value
        elif isinstance(value, dict) and key != "sources":
            inner = getattr(model, name, None) if isinstance(model, BaseModel) else model.get(key) if isinstance(model, dict) else None
            yield from _walk(value, inner, f"{path}.")


def _moved(path: str) -> str:
    for profile, dataclass_path in _MOVED.items():
        if path == profile or path.endswith("." + profile):
            return path.removesuffix(profile) + dataclass_path
    return path


def _one(path: str, figure: Figure) -> Provenance:
    source = figure.source or {}
    return Provenance(
        path=path,
        written=str(figure.value),
        kind=str(source.get("kind", "")),
        title=str(source.get("title", "")),
        note=str(source.get("note", "")),
    )
