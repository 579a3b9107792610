"""Operating points: what a clock does to times and energies, and the clock that a power cap leaves a pass.

At a clock f, with f0 the reference clock and V the voltage,

    math:    t = t0 · (1 - a + a · f0/f)        joules = j0 · (V/V0)²
    memory:  t = t0 · (1 - b + b · f0/f)        joules = j0
    busy:    watts = w0 · f/f0 · (V/V0)²

and communication does not change. The controller of a cap acts on power averaged over tens of milliseconds, which is about a pass of
a chunk: the highest clock is taken at which the pass, as a whole, draws no more than the cap. Where the lowest clock still draws
more, cycles are left out (`duty`).

**Source:** Guerreiro et al., HPCA 2018, equations 1 to 4 (core and memory domains apart); NVIDIA, nvidia-smi manual, power limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foretrain.hardware.accelerator import AcceleratorPower, ClockCurve
from foretrain.hardware.power import energy_scale

HALVINGS = 24
"""Halvings of the range of clocks: to a ten-millionth of it."""
LEAST_DUTY = 1e-3
BESIDE = 0.5
"""Share of the power above idle that transfers beside a pass may take from it: more would stop the pass for them."""
ROUNDING = 1e-12
"""What sums of watts may be off by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An operating point relative to the reference: factors of times, of energy per operation and of the watts of being busy."""

    hz: float
    math_time: float = 1.0
    memory_time: float = 1.0
    math_energy: float = 1.0
    busy_power: float = 1.0
    duty: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """How a pass is run: its operating point, and the share of its reckoned dynamic energy that the power limit lets it draw."""

    point: Point
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Seconds on the device and joules above idle of a pass: of the device itself, and of its links, which no clock changes."""

    seconds: float
    joules: float
    link_j: float = 0.0


def point_at(clocks: ClockCurve, hz: float, duty: float = 1.0) -> Point:
    """Return the operating point of a clock."""
    stretch, energy = clocks.reference_hz / hz, energy_scale(clocks, hz)
    return Point(
        hz=hz,
        math_time=1.0 - clocks.math_share + clocks.math_share * stretch,
        memory_time=1.0 - clocks.memory_share + clocks.memory_share * stretch,
        math_energy=energy,
        busy_power=energy / stretch,
        duty=duty,
    )


class Governor:
    """Chooses the operation of each pass under the settings of an accelerator.

    The rates of a profile were measured under its power limit, so at the reference clock nothing is slowed down for the limit: where
    the sum of a pass's parts exceeds it, they are scaled to it. A cap below the limit, or a fixed clock, does change the clock.
    """

    def __init__(self, power: AcceleratorPower) -> None:
        self.power = power
        self.reference = Point(hz=power.clocks.reference_hz if power.clocks else 0.0)
        self.cap_w = power.limit_w if power.cap_w is None else power.cap_w

    @property
    def window_s(self) -> float:
        """Time over which the controller averages."""
        return self.power.clocks.window_s if self.power.clocks else 0.0

    def operation(self, draw: Callable[[Point], Draw], beside_w: float = 0.0) -> Operation:
        """Return how a pass is run of which `draw` tells what it takes at an operating point.

        `beside_w` is what transfers draw that run beside it; at most half of what there is above idle is kept for them.
        """
        beside_w = min(beside_w, BESIDE * (self.cap_w - self.power.idle_w))
        share = self._share(draw(self.reference), beside_w)
        clocks = self.power.clocks
        if clocks is None or (self.power.cap_w is None and self.power.clock_hz is None):
            return Operation(point=self.reference, share=share)
        top = self.power.clock_hz or clocks.reference_hz

        def point(level: float) -> Point:
            if level >= 1.0:
                return point_at(clocks, clocks.lowest_hz + (level - 1.0) * (top - clocks.lowest_hz))
            return point_at(clocks, clocks.lowest_hz, max(level, LEAST_DUTY))

        def allowed(level: float) -> bool:
            return self._watts(draw(point(level)), share) + beside_w <= self.cap_w * (1.0 + ROUNDING)

        return Operation(point=point(_highest(allowed)), share=share)

    def _share(self, reference: Draw, beside_w: float) -> float:
        if reference.joules <= 0.0:
            return 1.0
        left_w = self.power.limit_w - self.power.idle_w - beside_w
        return max(0.0, min(1.0, (left_w * reference.seconds - reference.link_j) / reference.joules))

    def _watts(self, draw: Draw, share: float) -> float:
        return self.power.idle_w + ((share * draw.joules + draw.link_j) / draw.seconds if draw.seconds else 0.0)


def _highest(allowed: Callable[[float], bool]) -> float:
    """Return the highest level from 0 (least duty) over 1 (lowest clock) to 2 (highest) that is allowed; 0 where none is."""
    if allowed(2.0):
        return 2.0
    low, high = (1.0, 2.0) if allowed(1.0) else (0.0, 1.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low
