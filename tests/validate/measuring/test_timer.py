"""The timer against clocks whose answer is known."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.validate.measuring.timer import HostClock, Limit, Sample, spread_of, timed


class _Script:
    """A clock that gives these seconds in turn, the last for ever."""

    sample_s = 1e-3

    def __init__(self, *seconds):
        self.seconds, self.counts, self.warmed = list(seconds), [], 0

    def warm(self, _call):
        self.warmed += 1
        return self.seconds[0]

    def sample(self, _call, count):
        self.counts.append(count)
        value = self.seconds[min(len(self.counts), len(self.seconds)) - 1]
        return Sample(wall_s=value, cpu_s=value / 2, device_s=None)


def test_quartiles_of_one_to_five():
    spread = spread_of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (spread.median, spread.q1, spread.q3, spread.repeats, spread.relative) == (3.0, 2.0, 4.0, 5, 2 / 3)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=40))
def test_quartiles_are_in_order_and_within(values):
    spread = spread_of(values)
    low, high = min(values) * (1 - 1e-12), max(values) * (1 + 1e-12)
    assert low <= spread.q1 <= spread.median * (1 + 1e-12) <= spread.q3 * (1 + 1e-11) <= high * (1 + 1e-10)


def test_calls_that_never_vary_need_the_least_repeats():
    clock = _Script(1e-4)
    timing = timed(lambda: None, clock=clock, limit=Limit(least=5))
    assert (timing.seconds.repeats, timing.seconds.median, timing.cpu_s.median) == (5, 1e-4, 5e-5)
    assert clock.warmed == 2
    assert set(clock.counts) == {10}  # 1 ms of calls a sample


def test_calls_that_vary_are_repeated_until_time_or_repeats_are_up():
    clock = _Script(*[1e-3, 2e-3] * 50)
    assert timed(lambda: None, clock=clock, limit=Limit(relative=0.0, most=60)).seconds.repeats == 60


def test_a_scatter_of_half_is_known_to_a_tenth_after_some_25_samples():
    """The quartiles of 1 and 1.5 in turn are half a median apart: n = (0.4 / 0.1)² or (0.5 / 0.1)²."""
    timing = timed(lambda: None, clock=_Script(*[1e-3, 1.5e-3] * 50), limit=Limit(relative=0.1))
    assert 16 <= timing.seconds.repeats <= 26


def test_time_ends_the_repeats():
    assert timed(lambda: None, clock=HostClock(), limit=Limit(most_s=0.0)).seconds.repeats == 1


def test_the_host_clock_counts_its_own_work():
    """A loop on the processor takes processor time, a sleep none."""
    asleep = timed(lambda: time.sleep(5e-3), clock=HostClock(), limit=Limit(most_s=0.05))
    assert asleep.seconds.median >= 5e-3
    assert asleep.cpu_s.median < 2.5e-3
    assert asleep.data()["seconds"]["median"] == pytest.approx(asleep.wall_s.median)
