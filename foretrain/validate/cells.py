"""Reading the cells of a published row: numbers with the name of their column in every complaint."""

from __future__ import annotations

import math
from collections.abc import Mapping

from foretrain.errors import ProfileError

Row = Mapping[str, str]


def text(row: Row, column: str) -> str:
    """Return the cell without surrounding blanks, or an empty string where the row has none."""
    return (row.get(column) or "").strip()


def number(row: Row, column: str) -> float | None:
    """Return a positive number, or None where the cell is empty.

    Raises:
        ProfileError: where the cell is not a finite number above zero.
    """
    cell = text(row, column)
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ProfileError(f"{column} is {cell!r}; a number above zero is expected")
    return value


def whole(row: Row, column: str) -> int | None:
    """Return a whole number from 1, or None where the cell is empty.

    Raises:
        ProfileError: where the cell is anything else.
    """
    value = number(row, column)
    if value is None:
        return None
    if value != int(value):
        raise ProfileError(f"{column} is {text(row, column)!r}; a whole number is expected")
    return int(value)


def needed(row: Row, column: str, meaning: str) -> int:
    """Return a whole number that a prediction cannot do without.

    Raises:
        ProfileError: where the row does not give it.
    """
    value = whole(row, column)
    if value is None:
        raise ProfileError(f"{meaning} is not given ({column} is empty)")
    return value
