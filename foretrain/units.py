"""Physical units, read once at the edge: "400 Gbit/s" in a profile is 5e10 bytes per second inside.

k, M, G, T are powers of ten, Ki, Mi, Gi, Ti powers of two, and bits are not bytes.
"""

from __future__ import annotations

import functools
import math
import re
from decimal import Decimal

from foretrain.errors import ProfileError, nearest

_PREFIX = {
    "p": "1e-12", "n": "1e-9", "u": "1e-6", "µ": "1e-6", "μ": "1e-6", "m": "1e-3", "": "1",
    "k": "1e3", "M": "1e6", "G": "1e9", "T": "1e12", "P": "1e15", "E": "1e18",
    "Ki": str(2**10), "Mi": str(2**20), "Gi": str(2**30), "Ti": str(2**40), "Pi": str(2**50),
}  # fmt: skip
# Symbol: size in its base, and the powers of (byte, second, joule, FLOP, dollar, gram).
_Dimension = tuple[int, int, int, int, int, int]
_PREFIXED: dict[str, tuple[str, _Dimension]] = {
    "B": ("1", (1, 0, 0, 0, 0, 0)), "bit": ("0.125", (1, 0, 0, 0, 0, 0)), "b": ("0.125", (1, 0, 0, 0, 0, 0)),
    "s": ("1", (0, 1, 0, 0, 0, 0)), "Hz": ("1", (0, -1, 0, 0, 0, 0)),
    "J": ("1", (0, 0, 1, 0, 0, 0)), "Wh": ("3600", (0, 0, 1, 0, 0, 0)), "W": ("1", (0, -1, 1, 0, 0, 0)),
    "FLOP": ("1", (0, 0, 0, 1, 0, 0)), "FLOPS": ("1", (0, -1, 0, 1, 0, 0)),
    "USD": ("1", (0, 0, 0, 0, 1, 0)), "g": ("1", (0, 0, 0, 0, 0, 1)), "t": ("1e6", (0, 0, 0, 0, 0, 1)),
}  # fmt: skip
_NONE: _Dimension = (0, 0, 0, 0, 0, 0)
_PLAIN: dict[str, tuple[str, _Dimension]] = {
    "1": ("1", _NONE), "%": ("0.01", _NONE), "k": ("1e3", _NONE), "M": ("1e6", _NONE), "G": ("1e9", _NONE), "T": ("1e12", _NONE),
    "min": ("60", (0, 1, 0, 0, 0, 0)), "h": ("3600", (0, 1, 0, 0, 0, 0)), "d": ("86400", (0, 1, 0, 0, 0, 0)),
}  # fmt: skip
_BASES = ("B", "s", "J", "FLOP", "USD", "g")
_NUMBER = r"[+-]?(?:(?:nan|infinity|inf)\b|(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:[eE][+-]?\d+)?)"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*(\S.*?)?\s*", re.IGNORECASE)


def parse(text: str, unit: str, *, negative: bool = False) -> float:
    """Return the number that `text` states, in `unit`.

    Raises ProfileError where `text` is no finite number, has no unit or one of another dimension, or is negative without leave.

    >>> parse("400 Gbit/s", "B/s")
    50000000000.0
    """
    number, written = _split(text)
    if not number.is_finite():
        raise ProfileError(f"{text!r} is not finite; give a finite number{_of(unit)}")
    size, dimension = _factor(written or "1", text)
    wanted_size, wanted = _factor(unit, unit)
    if dimension != wanted:
        raise ProfileError(_mismatch(text, written, dimension, unit))
    value = _float(number, size / wanted_size)
    if not math.isfinite(value):
        raise ProfileError(f"{text!r} is not finite; give a finite number{_of(unit)}")
    if value < 0 and not negative:
        raise ProfileError(f"{text!r} is negative; give a number{_of(unit)} from 0")
    return value


def show(value: float, unit: str, digits: int = 3) -> str:
    """Return `value` (in `unit`) for people: `digits` significant digits and the prefix that suits them, as `parse` reads it back.

    >>> show(3.35e12, "B/s")
    '3.35 TB/s'
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {unit}".removesuffix(" 1")
    rounded = float(f"{value:.{digits - 1}e}")
    step, symbol = _scale(abs(rounded), unit)
    scaled = rounded / step
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(float(f"{scaled:.{digits - 1}e}")))))
    written = f"{scaled:,.{decimals}f}"
    if "." in written:
        written = written.rstrip("0").rstrip(".")
    return f"{written} {symbol}".removesuffix(" 1")


def _split(text: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None or not match[1].strip("+-.,"):
        raise ProfileError(f"{text!r} is no number with a unit; write one such as '3.35 TB/s'")
    try:
        return Decimal(match[1].replace(",", "")), match[2] or ""
    except ArithmeticError:
        raise ProfileError(f"{text!r} is no number with a unit; write one such as '3.35 TB/s'") from None


def _float(number: Decimal, size: Decimal) -> float:
    """Return the product, rounded once: 2.039 TB/s is 2039000000000.0, and no neighbour of it."""
    try:
        return float(number * size)
    except ArithmeticError:
        return math.inf


@functools.lru_cache(maxsize=4096)
def _factor(unit: str, text: str) -> tuple[Decimal, _Dimension]:
    above, *below = unit.split("/")
    size, dimension = _atom(above.strip(), text)
    for part in below:
        divisor, powers = _atom(part.strip(), text)
        size /= divisor
        dimension = (
            dimension[0] - powers[0], dimension[1] - powers[1], dimension[2] - powers[2],
            dimension[3] - powers[3], dimension[4] - powers[4], dimension[5] - powers[5],
        )  # fmt: skip
    return size, dimension


def _atom(symbol: str, text: str) -> tuple[Decimal, _Dimension]:
    if symbol in _PLAIN:
        return Decimal(_PLAIN[symbol][0]), _PLAIN[symbol][1]
    for length in range(min(2, len(symbol) - 1) + 1):
        prefix, rest = symbol[:length], symbol[length:]
        if prefix in _PREFIX and rest in _PREFIXED:
            size, dimension = _PREFIXED[rest]
            return Decimal(_PREFIX[prefix]) * Decimal(size), dimension
    raise ProfileError(f"{text!r} has the unknown unit {symbol!r}{_meant(symbol)}")


def _meant(symbol: str) -> str:
    """Return the remedy for an unknown symbol: a rate that is written as networks are sold, or what looks like it."""
    if symbol.endswith(("bps", "Bps")):
        return f"; did you mean {symbol[:-3] + ('bit/s' if symbol[-3] == 'b' else 'B/s')!r}?"
    return nearest(symbol, _symbols()) or f"; use one of {', '.join(_PREFIXED)}, with a prefix or none"


@functools.cache
def _symbols() -> tuple[str, ...]:
    """Return what is offered for an unknown symbol; money takes no prefix."""
    bases = [base for base in _PREFIXED if base != "USD"]
    return (*_PLAIN, "USD", *(prefix + base for base in bases for prefix in _PREFIX))


def _mismatch(text: str, written: str, dimension: _Dimension, unit: str) -> str:
    if not written:
        return f"{text!r} has no unit, but this field is in {unit}; write for example '{text.strip()} {unit}'"
    if unit == "1":
        return f"{text!r} is in {_name(dimension)}, but this field is a plain number"
    if dimension == _NONE:
        return f"{text!r} is a plain number, but this field is in {unit}"
    return f"{text!r} is in {_name(dimension)}, but this field is in {unit}"


def _name(dimension: _Dimension) -> str:
    """Return the base unit of a dimension: B/s, W, J/FLOP."""
    for symbol in ("W", "Hz"):
        if _PREFIXED[symbol][1] == dimension:
            return symbol
    above = [base if power == 1 else f"{base}^{power}" for base, power in zip(_BASES, dimension, strict=True) if power > 0]
    below = [base if power == -1 else f"{base}^{-power}" for base, power in zip(_BASES, dimension, strict=True) if power < 0]
    return "/".join([" ".join(above) or "1", *below])


def _of(unit: str) -> str:
    return "" if unit == "1" else f" in {unit}"


_TIME = ((172800.0, 86400.0, "d"), (7200.0, 3600.0, "h"), (600.0, 60.0, "min"))
_MASS = ((1e9, 1e9, "kt"), (1e6, 1e6, "t"), (1e3, 1e3, "kg"), (1.0, 1.0, "g"), (0.0, 1e-3, "mg"))


def _scale(magnitude: float, unit: str) -> tuple[float, str]:
    """Return the divisor and the symbol that bring `magnitude` to between 1 and 1,000 where the unit takes prefixes."""
    above, slash, below = unit.partition("/")
    special = {"s": _TIME, "g": _MASS}.get(unit, ())
    for least, step, symbol in special:
        if magnitude >= least:
            return step, symbol
    if above not in ("B", "bit", "s", "Hz", "J", "W", "Wh", "FLOP") or (above == "s" and magnitude >= 1):
        return 1.0, unit
    for prefix in ("E", "P", "T", "G", "M", "k", "", "m", "u", "n", "p"):
        if magnitude >= float(_PREFIX[prefix]):
            return float(_PREFIX[prefix]), prefix + above + slash + below
    return float(_PREFIX["p"]), "p" + above + slash + below
