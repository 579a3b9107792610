"""Units: what profiles write is what the simulator computes with."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import ProfileError
from foretrain.units import parse, show

UNITS = ("B", "B/s", "FLOP", "FLOP/s", "s", "W", "J", "J/FLOP", "J/B", "USD", "USD/h", "USD/kWh", "g", "g/kWh", "1")


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("400 Gbit/s", "B/s", 5e10),
        ("400 Gb/s", "B/s", 5e10),
        ("3.35 TB/s", "B/s", 3.35e12),
        ("989.4 TFLOP/s", "FLOP/s", 989.4e12),
        ("989.4 TFLOPS", "FLOP/s", 989.4e12),
        ("80 GB", "B", 80e9),
        ("80 GiB", "B", 80 * 2**30),
        ("4KiB", "B", 4096),
        ("5 us", "s", 5e-6),
        ("5 µs", "s", 5e-6),
        ("2 min", "s", 120),
        ("1 d", "s", 86400),
        ("700 W", "W", 700),
        ("700 J/s", "W", 700),
        ("1 kWh", "J", 3.6e6),
        ("0.7 pJ/FLOP", "J/FLOP", 0.7e-12),
        ("13.1 pJ/bit", "J/B", 104.8e-12),
        ("40 USD/h", "USD/h", 40),
        ("0.4 kg/kWh", "g/kWh", 400),
        ("85 %", "1", 0.85),
        ("85%", "1", 0.85),
        ("0.85", "1", 0.85),
        ("1e-3", "1", 1e-3),
        ("2 T", "1", 2e12),
        ("1,234,000 USD", "USD", 1_234_000),
        (".5 s", "s", 0.5),
    ],
)
def test_units_are_read(text: str, unit: str, value: float) -> None:
    """Prefixes of ten and of two, bits and bytes, compound units."""
    assert parse(text, unit) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        ("80 GB", "B/s", "'80 GB' is in B, but this field is in B/s"),
        ("80 W", "s", "'80 W' is in W, but this field is in s"),
        ("3 TFLOP", "1", "'3 TFLOP' is in FLOP, but this field is a plain number"),
        ("85 %", "B", "'85 %' is a plain number, but this field is in B"),
        ("80", "B/s", "'80' has no unit, but this field is in B/s; write for example '80 B/s'"),
        ("80 KB", "B", "unknown unit 'KB'; did you mean"),
        ("80 parsec", "B", "unknown unit 'parsec'"),
        ("fast", "B/s", "no number"),
        ("", "s", "no number"),
        ("1.2.3 s", "s", "unknown unit"),
        ("- s", "s", "no number"),
        ("nan s", "s", "not finite"),
        ("inf", "1", "not finite"),
        ("1e999 s", "s", "not finite"),
        ("-3 W", "W", "negative"),
        ("1,2 s", "s", "unknown unit"),
        ("3 s/", "s", "unknown unit"),
    ],
)
def test_a_wrong_quantity_is_refused_with_the_reason(text: str, unit: str, message: str) -> None:
    """Wrong dimension, missing or unknown unit, not a number, not finite, negative."""
    with pytest.raises(ProfileError) as caught:
        parse(text, unit)
    assert message in str(caught.value)


def test_a_negative_number_is_read_where_the_caller_allows_it() -> None:
    """Some fields, such as a relative change, may be below zero."""
    assert parse("-5 %", "1", negative=True) == pytest.approx(-0.05)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.35e12, "B/s", "3.35 TB/s"),
        (81.6, "s", "81.6 s"),
        (1.2e6, "J", "1.2 MJ"),
        (999.6e6, "B", "1 GB"),
        (5e-6, "s", "5 us"),
        (86400 * 30, "s", "30 d"),
        (4.5 * 3600, "s", "4.5 h"),
        (1_234_567, "USD", "1,230,000 USD"),
        (0.7e-12, "J/FLOP", "0.7 pJ/FLOP"),
        (385.0, "g/kWh", "385 g/kWh"),
        (2.5e6, "g", "2.5 t"),
        (0.0, "W", "0 W"),
        (0.853, "1", "0.853"),
        (-1500.0, "W", "-1.5 kW"),
    ],
)
def test_quantities_are_shown_as_people_write_them(value: float, unit: str, text: str) -> None:
    """Three digits and the prefix that leaves one to three of them before the point."""
    assert show(value, unit) == text


@settings(deadline=None, derandomize=True)
@given(value=st.floats(1e-14, 1e20), unit=st.sampled_from(UNITS), digits=st.integers(1, 9))
def test_what_is_shown_reads_back(value: float, unit: str, digits: int) -> None:
    """`parse` inverts `show` to the digits shown."""
    assert parse(show(value, unit, digits), unit) == pytest.approx(value, rel=0.51 * 10.0 ** (1 - digits))
