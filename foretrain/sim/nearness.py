"""How far measured kernels are from what a curve says of them, and so what it is likely to be off by near them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp

import numpy as np

from foretrain.hardware.measured import Row

REACH = 0.01
"""Squared octaves within which the nearest measurement decides alone."""
DOUBT = 0.02
"""Weight of the curve itself, which a measurement has two and a half octaves away."""


class Nearness:
    """Corrects the seconds of a curve by those of a table, `rows` of which the curve prices at `priced_s`.

    A shape's correction is the mean of those of the measured shapes, in logarithms, weighted by the inverse fourth power of their
    distance in octaves; the curve itself has a small weight, so that far from all measurements it stands.

    **Source:** Shepard, A two-dimensional interpolation function for irregularly-spaced data, Proc. 23rd ACM National Conference, 1968.
    """

    def __init__(self, rows: Sequence[Row], priced_s: Callable[[Row], float]) -> None:
        table = np.array(rows, dtype=np.float64)
        self._shapes = np.log2(np.maximum(table[:, :-1], 1.0))
        self._off = np.log(table[:, -1]) - np.log([priced_s(row) for row in rows])
        self._known: dict[Row, float] = {}

    def factor(self, shape: Row) -> float:
        """Return measured over priced seconds, as it is likely to be for `shape`."""
        known = self._known.get(shape)
        if known is None:
            distance = ((self._shapes - np.log2(np.maximum(shape, 1.0))) ** 2).sum(axis=1)
            weights = 1.0 / (distance + REACH) ** 2
            known = self._known[shape] = exp(float(weights @ self._off) / (float(weights.sum()) + DOUBT))
        return known
