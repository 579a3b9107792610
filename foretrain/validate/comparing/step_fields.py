"""What a measured step must look like to be compared: the fields of its record, checked before anything relies on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from foretrain.errors import shortened


def fault_of(data: Mapping[str, Any]) -> str:
    """Return which field of a step's record is not as measurements are written; empty where all are."""
    for name, (fits, wanted) in _FIELDS.items():
        value = data.get(name)
        if value is not None and not fits(value):
            return f"its {name} is {shortened(value)}, which is no {wanted}"
    return ""


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _spread(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"median", "q1", "q3", "repeats"} and all(map(_number, value.values()))


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number, value))


def _numbers_by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and all(one is None or _number(one) for one in value.values())


def _collectives(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, Mapping) and isinstance(one.get("op"), str) and _number(one.get("bytes")) for one in value
    )


def _energy(value: Any) -> bool:
    return isinstance(value, Mapping) and (value.get("joules_per_step") is None or _number(value["joules_per_step"]))


_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "case": (lambda value: isinstance(value, Mapping), "case"),
    "world_size": (lambda value: _number(value) and value >= 1, "number of ranks"),
    "step_s": (_spread, "spread of median, q1, q3 and repeats"),
    "losses": (_numbers, "list of numbers"),
    "memory": (_numbers_by_name, "bytes by name"),
    "collectives": (_collectives, "list of op and bytes"),
    "energy": (_energy, "energy with joules_per_step and source"),
}
