"""Values of small tensors that hang on no input, such as positions: what a module may look at although a trace has no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from foretrain.models.trace_shapes import LARGEST_CONSTANT, OpInfo

_RANDOM = ("rand", "normal", "bernoulli", "uniform", "dropout", "exponential", "multinomial", "empty")


class Constants:
    """The values of shapes, for as long as only constants go into them."""

    def __init__(self) -> None:
        self._values: dict[int, tuple[Any, Any]] = {}

    def of(self, tensor: Any) -> Any:
        """Return the values of a tensor; None where they hang on data."""
        if tensor.device.type != "meta":
            return tensor
        known = self._values.get(id(tensor))
        return None if known is None else known[1]

    def all_known(self, tensors: Sequence[Any]) -> bool:
        """Tell whether the values of all these tensors are known."""
        return all(one.device.type != "meta" or id(one) in self._values for one in tensors)

    def evaluate(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return the result of an op on values."""
        real = {key: self._real(value) for key, value in kwargs.items()}
        if real.get("device") is not None:
            real["device"] = torch.device("cpu")
        with torch.no_grad():
            return func(*(self._real(one) for one in args), **real)

    def follow(  # an op and its call
        self, func: Any, info: OpInfo, tensors: Sequence[Any], args: Any, kwargs: dict[str, Any], result: Any
    ) -> None:
        """Note the values of a result where those of everything that went into it are known."""
        if tensors and not self._values:
            return
        results = [one for one in (result if isinstance(result, (list, tuple)) else [result]) if isinstance(one, torch.Tensor)]
        known = self.all_known(tensors) and not any(word in info.name for word in _RANDOM)
        if not known or any(one.numel() > LARGEST_CONSTANT for one in results):
            if not info.functional:
                self._forget(tensors[:1])
            return
        values = self.evaluate(func, args, kwargs)
        for one, value in zip(results, values if isinstance(values, (list, tuple)) else [values], strict=False):
            if one.device.type == "meta":
                self._values[id(one)] = (one, value)

    def _forget(self, written: Sequence[Any]) -> None:
        """Drop the values of what an op with data has written into, and of everything that shares its memory."""
        gone = {self._values[id(one)][1].untyped_storage()._cdata for one in written if id(one) in self._values}
        if gone:
            self._values = {key: pair for key, pair in self._values.items() if pair[1].untyped_storage()._cdata not in gone}

    def _real(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.of(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self._real(one) for one in value)
        return value
