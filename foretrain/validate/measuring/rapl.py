"""Joules of the processor packages and their memory, from the running-average-power-limit counters that Linux shows as files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foretrain.validate.measuring.counters import UnavailableError

POWERCAP = Path("/sys/class/powercap")
MOST_DOMAIN_W = 1000.0
"""More than any package draws: tells how long a counter cannot have wrapped twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One counter in microjoules, which begins again past `range_uj`."""

    path: Path
    range_uj: int

    def read_uj(self) -> int:
        """Return the counter."""
        return _number(self.path / "energy_uj")


def domains(root: Path = POWERCAP) -> tuple[Domain, ...]:
    """Return every package, and the memory beside them; not the cores, which a package contains, nor the platform, which contains it.

    Raises:
        UnavailableError: where there is no counter that this user may read.
    """
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if _name(folder).startswith(("package", "dram")):
            _number(folder / "energy_uj")
            found.append(Domain(path=folder, range_uj=_number(folder / "max_energy_range_uj")))
    if not found:
        raise UnavailableError(f"no RAPL counter under {root}; virtual machines and containers often hide them")
    return tuple(found)


class Rapl:
    """Joules of all packages and their memory together, whoever used them."""

    source = "rapl"

    def __init__(self, root: Path = POWERCAP, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._domains, self._clock = domains(root), clock
        self._began_s = 0.0
        self._began_uj: tuple[int, ...] = ()

    def start(self) -> None:
        """Begin a window."""
        self._began_uj = tuple(one.read_uj() for one in self._domains)
        self._began_s = self._clock()

    def stop(self) -> float:
        """Return the joules since; a counter may have begun again once."""
        window_s = self._clock() - self._began_s
        longest_s = min(one.range_uj for one in self._domains) / 1e6 / MOST_DOMAIN_W
        if window_s > longest_s:
            raise UnavailableError(f"a window of {window_s:.0f} s; RAPL counters may begin again twice after {longest_s:.0f} s")
        now_uj = tuple(one.read_uj() for one in self._domains)
        parts = zip(self._domains, self._began_uj, now_uj, strict=True)
        spent_uj = sum((now - began) % (one.range_uj + 1) for one, began, now in parts)
        if not spent_uj:
            raise UnavailableError("the RAPL counters did not move")
        return spent_uj / 1e6


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise UnavailableError(f"{path} may be read by root only; an administrator can chmod it") from error
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{path} cannot be read: {error}") from error
