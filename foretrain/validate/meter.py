"""Energy as this machine counts it, with the name of what counted; unavailable with the reason where nothing does, never zero.

A GPU is read through NVML: its total-energy counter, else its power, polled. A CPU is read through RAPL, which counts the whole
package, whoever used it; it says nothing of a GPU and so never stands in for one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretrain.validate.measuring.counters import Counter, UnavailableError
from foretrain.validate.measuring.nvml import energy_counter
from foretrain.validate.measuring.rapl import POWERCAP, Rapl

LEAST_WINDOW_S = 5.0
"""Shorter windows show the steps of the counters."""
BATCH_S = 0.1
"""How much work is queued before the device is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Joules of a window and what counted them; without joules, the reason."""

    joules: float | None
    source: str
    window_s: float
    reason: str = ""

    @property
    def watts(self) -> float | None:
        """Mean power over the window."""
        return None if self.joules is None else self.joules / self.window_s

    def data(self, steps: int) -> dict[str, Any]:
        """Return what a record says of the energy of one of `steps` equal pieces of work."""
        if self.joules is None:
            return {"source": self.source, "reason": self.reason}
        return {"joules_per_step": self.joules / steps, "source": self.source, "window_s": self.window_s}


class Meter:
    """Counts the energy of windows. `reason` says why there is no counter."""

    def __init__(self, counter: Counter | None, *, reason: str = "", least_window_s: float = LEAST_WINDOW_S) -> None:
        self.reason = reason
        self.least_window_s = least_window_s
        self._counter = counter
        self._began_s = 0.0

    @property
    def source(self) -> str:
        """What counts."""
        return self._counter.source if self._counter and not self.reason else "unavailable"

    def start(self) -> None:
        """Begin a window; a counter that is lost here is said at its end."""
        if self._counter and not self.reason:
            try:
                self._counter.start()
            except UnavailableError as error:
                self.reason = f"lost: {error}"
        self._began_s = time.perf_counter()

    def stop(self) -> Energy:
        """End the window. The device must have finished its work."""
        window_s = time.perf_counter() - self._began_s
        joules = None
        if self._counter and not self.reason:
            try:
                joules = self._counter.stop()
            except UnavailableError as error:
                self.reason = f"lost: {error}"
        reason = self.reason
        if not reason and window_s < self.least_window_s:
            reason = f"a window of {window_s:.2f} s; {self.least_window_s:g} s are needed"
        if reason or joules is None:
            return Energy(joules=None, source="unavailable", window_s=window_s, reason=reason)
        return Energy(joules=joules, source=self.source, window_s=window_s)


def open_meter(device: str, index: int = 0, *, library: Any = None, powercap: Path = POWERCAP) -> Meter:
    """Return the best meter of a device: `cpu`, or `cuda` with torch's number of the GPU. `library` stands in for pynvml."""
    try:
        return Meter(energy_counter(index, library=library) if device == "cuda" else Rapl(powercap))
    except UnavailableError as error:
        return Meter(None, reason=str(error))


def measured(
    meter: Meter, work: Callable[[], object], *, finish: Callable[[], object], window_s: float = LEAST_WINDOW_S
) -> tuple[Energy, int]:
    """Repeat `work` for a window and return its energy and how often it ran; `finish` waits for the device.

    The device is waited for every tenth of a second, so that no queue of long work outlasts the window.
    """
    began_s = time.perf_counter()
    work()
    finish()
    batch = max(1, int(BATCH_S / max(time.perf_counter() - began_s, 1e-6)))
    count = 0
    meter.start()
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < window_s:
        for _ in range(batch):
            work()
        finish()
        count += batch
    return meter.stop(), count
