"""Power against clock: what a clock does to voltage, to the energy of an operation, and the settings of an accelerator.

A switching circuit of capacitance C at voltage V and clock f draws C V² f; one operation of it costs C V². The voltage is flat up
to a knee and rises about linearly from there, so below the knee a lower clock saves power but no energy per operation, and the time
that it costs is paid in idle power: the least energy is near the knee.

**Source:** Chandrakasan, Sheng, Brodersen, Low-power CMOS digital design, IEEE JSSC 27 (1992), equation 2 (C V² f); Guerreiro et al.,
GPGPU power modeling for multi-domain voltage-frequency scaling, HPCA 2018, figure 2 (voltage of GPUs flat, then linear in the clock).
"""

from __future__ import annotations

from dataclasses import replace

from foretrain.errors import ForetrainError, UsageError
from foretrain.hardware.accelerator import AcceleratorPower, ClockCurve
from foretrain.hardware.cluster import Cluster


def voltage(clocks: ClockCurve, hz: float) -> float:
    """Return the voltage at a clock over that below the knee."""
    if hz <= clocks.knee_hz:
        return 1.0
    return 1.0 + (clocks.highest_voltage - 1.0) * (hz - clocks.knee_hz) / (clocks.highest_hz - clocks.knee_hz)


def energy_scale(clocks: ClockCurve, hz: float) -> float:
    """Return the energy of an operation at a clock over that at the reference clock: the square of the voltage."""
    return (voltage(clocks, hz) / voltage(clocks, clocks.reference_hz)) ** 2


def operated(cluster: Cluster, *, cap_w: float | None = None, clock_hz: float | None = None) -> Cluster:
    """Return the cluster with its accelerators under a power cap or at a fixed clock; None leaves a setting as it is.

    Raises:
        UsageError: where an accelerator of this kind cannot be set so, with the range that it has.
    """
    power = cluster.accelerator.power
    try:
        changed = _set(power, cap_w, clock_hz)
    except ForetrainError as error:
        raise UsageError(f"{cluster.accelerator.name}: {error}") from None
    node = replace(cluster.node, accelerator=replace(cluster.accelerator, power=changed))
    return replace(cluster, node=node)


def _set(power: AcceleratorPower, cap_w: float | None, clock_hz: float | None) -> AcceleratorPower:
    cap = power.cap_w if cap_w is None else cap_w
    clock = power.clock_hz if clock_hz is None else clock_hz
    return replace(power, cap_w=cap, clock_hz=clock)
