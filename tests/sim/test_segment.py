"""Composition of kernels in the max-plus algebra against a recursion over the kernels themselves."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.sim.segment import MATH, Leg, SegmentBook, joined, merged
from tests.sim.jobs import kernels, transfer

quick = settings(deadline=None, derandomize=True, max_examples=100)
times = st.floats(0.0, 10.0)
runs = st.lists(st.tuples(times, times), min_size=1, max_size=12)


def ends(run: list[tuple[float, float]], device_s: float, host_s: float) -> tuple[float, float]:
    """Return when device and host are free, kernel by kernel: each starts when it is issued and the device is free."""
    for kernel_s, launch_s in run:
        host_s += launch_s
        device_s = max(device_s, host_s) + kernel_s
    return device_s, host_s


def free(leg: Leg, device_s: float, host_s: float) -> tuple[float, float]:
    """Return the same from a leg's three numbers."""
    return max(device_s + leg.device_s, host_s + leg.lead_s), host_s + leg.launch_s


@quick
@given(runs, times, times)
def test_three_numbers_say_what_a_run_of_kernels_does(run: list[tuple[float, float]], device_s: float, host_s: float) -> None:
    """From any lead of the host."""
    assert free(joined(kernels(*run), "run"), device_s, host_s) == pytest.approx(ends(run, device_s, host_s))


@quick
@given(runs, runs, runs)
def test_composition_is_associative(a: list[tuple[float, float]], b: list[tuple[float, float]], c: list[tuple[float, float]]) -> None:
    """Joined in any grouping, the numbers are the same."""
    one, two, three = (joined(kernels(*run), "run") for run in (a, b, c))
    left, right = joined((joined((one, two), "run"), three), "run"), joined((one, joined((two, three), "run")), "run")
    assert (left.device_s, left.lead_s, left.launch_s) == pytest.approx((right.device_s, right.lead_s, right.launch_s))
    assert left.class_s == pytest.approx(right.class_s)
    assert left.joules == pytest.approx(right.joules)


@quick
@given(runs)
def test_a_leg_keeps_what_its_kernels_add(run: list[tuple[float, float]]) -> None:
    """Time on the device by class, energy and FLOPs are sums."""
    leg = joined(kernels(*run), "run")
    total = sum(device_s for device_s, _ in run)
    assert leg.class_s[MATH] == leg.device_s == pytest.approx(total)
    assert leg.joules == pytest.approx({"math": total, "busy": 0.5 * total})
    assert leg.flop == pytest.approx(total)


@quick
@given(runs, st.lists(st.integers(0, 12), max_size=3))
def test_collectives_stay_apart(run: list[tuple[float, float]], places: list[int]) -> None:
    """Compute between them is one leg each, and nothing is lost."""
    legs = list(kernels(*run))
    for place in places:
        legs.insert(min(place, len(legs)), Leg(
            name="inline", device_s=1.0, lead_s=1.0, launch_s=0.0, class_s={}, joules={}, transfer=transfer(1.0, port=1.0)
        ))  # fmt: skip
    parts = merged(legs, "segment")
    assert [part for part in parts if part.transfer is not None] == [leg for leg in legs if leg.transfer is not None]
    assert all(a.transfer is not None or b.transfer is not None for a, b in pairwise(parts))
    whole = joined(legs, "segment")
    assert joined(parts, "segment").lead_s == pytest.approx(whole.lead_s)
    segment = SegmentBook().add("segment", tuple(legs), tuple(legs))
    assert segment.device_s == pytest.approx(whole.device_s)
    assert (segment.on_port, segment.on_network) == (bool(places), False)
