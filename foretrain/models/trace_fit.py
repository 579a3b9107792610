"""From two runs of different numbers of samples to what belongs to a sample and what is there once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from foretrain.errors import ModelError
from foretrain.models.moves import Amount
from foretrain.models.product import Size
from foretrain.models.trace_data import Data


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A line through two points: what a module does grows with the samples and is nothing less than a line."""

    first: int
    second: int

    def size(self, a: int, b: int, where: str) -> Size:
        """Return the dimension that is `a` in the first run and `b` in the second.

        Raises:
            ModelError: where it grows faster than the samples or falls: a pair of samples that meet, or a shape that hangs on data.
        """
        each, rest = divmod(b - a, self.second - self.first)
        once = a - each * self.first
        if rest or once < 0 or each < 0:
            raise ModelError(
                f"{where}: a dimension is {a} for {self.first} samples and {b} for {self.second}, which is no share of each sample and a "
                "rest; samples of a batch must not be paired with one another"
            )
        return Size(once, each)

    def number(self, a: int, b: int, where: str) -> tuple[float, float]:
        """Return (each, once) of a count of elements, as `size` does."""
        if a == b:
            return 0, a
        each = (b - a) / (self.second - self.first)
        once = a - each * self.first
        if once < 0 or each < 0:
            self.size(a, b, where)
        return (int(each) if each == int(each) else each), (int(once) if once == int(once) else once)

    def amount(self, a: Iterable[Data], b: Iterable[Data], where: str) -> Amount:
        """Return what two lists of the same pieces of memory hold in all."""
        (elements, octets), (more, larger) = _total(a), _total(b)
        each, once = self.number(elements, more, where)
        each_octets, once_octets = self.number(octets, larger, where)
        return Amount(each, each_octets, once, once_octets)


def _total(found: Iterable[Data]) -> tuple[int, int]:
    elements = octets = 0
    for one in found:
        elements += one.elements
        octets += one.octets
    return elements, octets
