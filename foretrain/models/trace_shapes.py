"""Runs ops on shapes alone: tensors without data, each combination of op and shapes worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from foretrain.models.trace_quick import quick
from foretrain.models.trace_rules import EMPTY, SAME, VIEWS

META = torch.device("meta")
LARGEST_CONSTANT = 65_536
"""Elements of a constant made in a forward pass that are still worked out, so that code may look at them."""


@dataclass(frozen=True, slots=True)
class OpInfo:
    """What the schema of an op says of it."""

    name: str
    namespace: str
    view: bool
    inplace: bool
    functional: bool
    factory: bool
    silent: bool
    """Whether it leaves no trace: it touches no memory, nor does its backward pass."""
    needs_data: bool


class Shapes:
    """Results of ops by the shapes they are given. Plain tensors become shapes as soon as they meet one."""

    def __init__(self, largest_constant: int = LARGEST_CONSTANT) -> None:
        self.largest_constant = largest_constant
        self._infos: dict[Any, OpInfo] = {}
        self._known: dict[Any, Any] = {}
        self._converted: dict[int, tuple[Any, Any]] = {}

    def info(self, func: Any) -> OpInfo:
        """Return what is to know of an op."""
        found = self._infos.get(func)
        if found is None:
            found = self._infos[func] = _info(func)
        return found

    def run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return the result of an op on shapes, or of one on plain constants only."""
        info = self.info(func)
        if info.inplace:
            return args[0]
        if not info.functional:
            return func(*args, **kwargs)
        key = (func, _key(args), _key(tuple(kwargs.items())) if kwargs else None)
        made = self._known.get(key)
        if made is None:
            result = quick(info.name, args)
            result = func(*args, **kwargs) if result is None else result
            self._known[key] = _recipe(result)
            return result
        return _cooked(made)

    def constant(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return what an op makes of no tensor at all: with its values where it is small, else only its shape."""
        shape = func(*args, **{**kwargs, "device": META})
        if kwargs.get("device") == META or shape.numel() > self.largest_constant:
            return shape
        return func(*args, **kwargs)

    def as_meta(self, value: Any) -> Any:
        """Return a plain tensor as a shape, the same one every time."""
        known = self._converted.get(id(value))
        if known is None:
            shape = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)
            known = self._converted[id(value)] = (value, shape)  # holds the original, so that its id stays its own
        return known[1]


def _info(func: Any) -> OpInfo:
    schema = func._schema
    name = schema.name.split("::")[1]
    returns = [one.alias_info for one in schema.returns]
    arguments = [one.alias_info for one in schema.arguments]
    tags = func.tags
    reshaping = torch.Tag.inplace_view in tags
    writes = any(alias is not None and alias.is_write for alias in arguments)
    view = name in VIEWS or reshaping or any(alias is not None and not alias.is_write for alias in returns)
    first = schema.arguments[0].alias_info if schema.arguments else None
    # An op such as add_ gives back its first argument, whose shape and type it keeps.
    inplace = bool(writes and len(returns) == 1 and first is not None and first.is_write and not view and name.endswith("_"))
    return OpInfo(
        name=name[:-1] if inplace else name,
        namespace=schema.name.split("::")[0],
        view=view,
        inplace=inplace,
        functional=not writes and not view,
        factory=not any("Tensor" in str(one.type) for one in schema.arguments),
        silent=name.rstrip("_") in EMPTY or name in SAME,
        needs_data=torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags,
    )


def _key(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(_key(one) for one in value)
    return (type(value), value)  # 1, 1.0 and True are equal, but make different tensors


def _recipe(result: Any) -> Any:
    if isinstance(result, torch.Tensor):
        return (result.shape, result.stride(), result.dtype)
    if isinstance(result, (list, tuple)):
        return [_recipe(one) for one in result]
    return None


def _cooked(made: Any) -> Any:
    if isinstance(made, list):
        return tuple(_cooked(one) for one in made)
    return None if made is None else torch.empty_strided(made[0], made[1], dtype=made[2], device=META)
