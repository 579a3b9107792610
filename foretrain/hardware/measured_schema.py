"""The shape of measured kernels in a profile: tables of numbers, each with its source."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from foretrain.hardware.measured import Measured, Row
from foretrain.quantity import Strict, figure_schema, written

DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4")
WIDTHS = ("bf16", "fp32")
CONVOLVED = ("forward", "data", "weight")
ATTENDED = ("forward", "backward")
CLASSES = (
    "activation", "activation_backward", "norm", "norm_backward", "batch_norm", "batch_norm_backward",
    "batch_norm_wide", "batch_norm_backward_wide", "softmax", "softmax_backward",
    "log_softmax", "log_softmax_backward", "loss", "reduce", "mean", "cast", "copy", "pool", "pool_backward", "gather", "scatter",
    "optimizer",
)  # fmt: skip
"""Classes of memory-bound kernels that are no plain elementwise ones."""
MESSAGES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send")
LONGEST_S = 1e4
LARGEST = 1e15
SLOWEST = 1e3


def _rows(value: Any, width: int, what: str) -> tuple[Row, ...]:
    rows = [_plain(row) for row in (value if isinstance(value, list) else [value])]
    for row in rows:
        sound = isinstance(row, list) and len(row) == width and all(_number(one) for one in row)
        if not sound or not 0.0 < row[-1] <= LONGEST_S or any(not 0 <= one <= LARGEST for one in row):
            raise ValueError(f"{what} has {row!r:.80}; a row is {width} numbers from 0, the last of them seconds above 0")
    return tuple(tuple(map(float, row)) for row in rows)


def _plain(row: Any) -> Any:
    """Return a row with numbers for texts such as `1e-4`, which YAML leaves as they are without a point."""
    return [_float(one) for one in row] if isinstance(row, list) else row


def _float(one: Any) -> Any:
    try:
        return float(one) if isinstance(one, str) else one
    except ValueError:
        return one


def _number(one: Any) -> bool:
    return isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)


def _keyed(value: Any, known: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(value) <= set(known):
        given = ", ".join(map(str, value)) if isinstance(value, dict) else repr(value)
        raise ValueError(f"{what} has {given:.80}; use tables called {', '.join(known)}")
    return value


def _products(given: Any) -> dict[str, tuple[Row, ...]]:
    return {dtype: _rows(rows, 5, f"products.{dtype}") for dtype, rows in _keyed(written(given), DTYPES, "products").items()}


def _directed(given: Any, directions: tuple[str, ...], width: int, what: str) -> dict[str, dict[str, tuple[Row, ...]]]:
    return {
        dtype: {one: _rows(rows, width, f"{what}.{dtype}.{one}") for one, rows in _keyed(found, directions, f"{what}.{dtype}").items()}
        for dtype, found in _keyed(written(given), DTYPES, what).items()
    }


def _convolutions(given: Any) -> dict[str, dict[str, tuple[Row, ...]]]:
    return _directed(given, CONVOLVED, 9, "convolutions")


def _attention(given: Any) -> dict[str, dict[str, tuple[Row, ...]]]:
    return _directed(given, ATTENDED, 6, "attention")


def _streams(given: Any) -> tuple[Row, ...]:
    rows = _rows(written(given), 2, "streams")
    if any(later[0] <= row[0] or later[1] < row[1] for row, later in pairwise(rows)):
        raise ValueError("streams are out of order; give rows of ever more bytes, none quicker than the one before")
    return rows


def _slowness(given: Any) -> dict[str, dict[str, float]]:
    found = _keyed(written(given), WIDTHS, "slowness")
    for dtype, classes in found.items():
        for name, value in _keyed(classes, CLASSES, f"slowness.{dtype}").items():
            if not _number(value) or not 0.0 < value <= SLOWEST:
                raise ValueError(f"slowness.{dtype}.{name} is {value!r}; give a number above 0 to {SLOWEST:g}")
    return {dtype: {name: float(value) for name, value in classes.items()} for dtype, classes in found.items()}


def _messages(given: Any) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    found = _keyed(written(given), MESSAGES, "measured")
    return tuple((kind, _rows(rows, 3, f"measured.{kind}")) for kind, rows in sorted(found.items()))


_TABLES = WithJsonSchema(figure_schema({"type": "object"}))
_ROWS = WithJsonSchema(figure_schema({"type": "array"}))


Messages = Annotated[tuple[Any, ...], BeforeValidator(_messages), _TABLES]
"""See `Fabric.measured`: a table per kind, whose rows are ranks, bytes and seconds."""


class MeasuredFile(Strict):
    """See `Measured`."""

    products: Annotated[dict[str, Any], BeforeValidator(_products), _TABLES] = Field(default_factory=dict)
    convolutions: Annotated[dict[str, Any], BeforeValidator(_convolutions), _TABLES] = Field(default_factory=dict)
    attention: Annotated[dict[str, Any], BeforeValidator(_attention), _TABLES] = Field(default_factory=dict)
    streams: Annotated[tuple[Any, ...], BeforeValidator(_streams), _ROWS] = ()
    slowness: Annotated[dict[str, Any], BeforeValidator(_slowness), _TABLES] = Field(default_factory=dict)

    def tables(self) -> Measured:
        """Return what the simulator reads."""
        return Measured(**vars(self))
