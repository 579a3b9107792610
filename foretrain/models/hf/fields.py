"""Fields of a configuration by name and type, with the class's default where the file leaves one out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from foretrain.errors import ModelError, nearest, shortened

LARGEST = 1_000_000_000
MOST_LAYERS = 10_000
"""Far above anything built; what lies beyond is a slip of digits."""


@functools.cache
def class_defaults() -> Mapping[str, Mapping[str, Any]]:
    """Return by model type the defaults of transformers' configuration classes, and other names of fields."""
    data = yaml.safe_load((Path(__file__).parent / "defaults.yaml").read_text(encoding="utf-8"))
    return MappingProxyType(data)


class Fields:
    """Reads one configuration; collects what is wrong with it, and which defaults it leans on."""

    def __init__(self, data: Mapping[str, Any], model_type: str) -> None:
        self.data = data
        self.model_type = model_type
        known = class_defaults()[model_type]
        self._defaults: Mapping[str, Any] = known["fields"]
        self._names: Mapping[str, str] = known.get("other_names", {})
        self.faults: list[str] = []
        self.notes: list[str] = []

    def has(self, name: str) -> bool:
        """Tell whether the file gives a field, under its own or its other name, and not as null."""
        return self._given(name)[1] is not None

    def raw(self, name: str, default: Any = None) -> Any:
        """Return a field as it is; left out, the class's default (else `default`), which is noted where it says something."""
        written, value = self._given(name)
        if written:
            return value
        own = self._names.get(name, name)
        found = self._defaults.get(own, default)
        if found is not None and own in self._defaults:
            self.note(f"{own} {_said(found)} (left out; default of {self.model_type})")
        return found

    def needed(self, name: str) -> int:
        """Return a size that no model goes without; one that is left out is a fault, whatever the class would take."""
        written, value = self._given(name)
        if not written:
            self.fault(f"{self._names.get(name, name)} is missing; a {self.model_type} needs it")
            return 1
        return self._size(name, value)

    def size(self, name: str) -> int:
        """Return a whole number from 1."""
        return self._size(name, self.raw(name))

    def count(self, name: str) -> int:
        """Return a whole number from 0."""
        return self._size(name, self.raw(name), least=0)

    def maybe(self, name: str) -> int | None:
        """Return a whole number from 1, or None where the field is null or left out."""
        value = self.raw(name)
        return None if value is None else self._size(name, value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a truth; null is a false one."""
        value = self.raw(name, default)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.fault(f"{name} {shortened(value)} is neither true nor false")
        return False

    def share(self, name: str, default: float = 0.0) -> float:
        """Return a share from 0 to 1; null is 0."""
        value = self.raw(name, default)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            self.fault(f"{name} {shortened(value)} is no share; give a number from 0 to 1")
            return 0.0
        return float(value)

    def numbers(self, name: str) -> tuple[int, ...]:
        """Return whole numbers from 0; null is none."""
        value = self.raw(name)
        if value is None:
            return ()
        if not isinstance(value, list) or any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in value):
            self.fault(f"{name} {shortened(value)} is no list of whole numbers")
            return ()
        return tuple(value)

    def words(self, name: str, known: Sequence[str], length: int) -> tuple[str, ...] | None:
        """Return `length` words, each of `known`; None where the field is null or left out."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list):
            self.fault(f"{name} {shortened(value)} is no list")
            return None
        if len(value) != length:
            self.fault(f"{name} has {len(value)} entries, but there are {length} layers; give one a layer")
            return None
        strange = [one for one in value if one not in known]
        if strange:
            self.fault(f"{name} {shortened(strange[0])} is unknown; use one of {', '.join(known)}")
            return None
        return tuple(value)

    def word(self, name: str, known: Mapping[str, str]) -> str:
        """Return what `known` says for the word in a field."""
        value = self.raw(name)
        if not isinstance(value, str) or value not in known:
            self.fault(f"{name} {shortened(value)} is unknown; use one of {', '.join(known)}{nearest(str(value), known)}")
            return next(iter(known.values()))
        return known[value]

    def fault(self, text: str) -> None:
        """Add something that is wrong."""
        if text not in self.faults:
            self.faults.append(text)

    def note(self, text: str) -> None:
        """Add something that was assumed."""
        if text not in self.notes:
            self.notes.append(text)

    def checked(self) -> None:
        """Raise what is wrong.

        Raises:
            ModelError: naming every fault.
        """
        if self.faults:
            raise ModelError("; ".join(self.faults[:4]) + (f"; and {len(self.faults) - 4} more" if len(self.faults) > 4 else ""))

    def _given(self, name: str) -> tuple[bool, Any]:
        """Return whether the file gives a field, under its own name or another that it goes by, and its value."""
        own = self._names.get(name, name)
        others = [other for other, target in self._names.items() if target == own]
        for one in (name, own, *others):
            if one in self.data:
                return True, self.data[one]
        return False, None

    def _size(self, name: str, value: Any, least: int = 1) -> int:
        most = MOST_LAYERS if "layer" in name and "norm" not in name else LARGEST
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(f"{name} {shortened(value)} is no whole number; give one from {least} to {most:,}")
            return max(1, least)
        if not least <= value <= most:
            self.fault(f"{name} {shortened(value)} is out of range; give a whole number from {least} to {most:,}")
            return max(1, least)
        return value


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else str(value)
