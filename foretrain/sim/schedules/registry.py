"""The schedules by name, for the command line and plan files; the engine takes any `Schedule`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from foretrain.errors import PlanError, nearest
from foretrain.sim.schedules.base import Schedule
from foretrain.sim.schedules.gpipe import GPipe
from foretrain.sim.schedules.interleaved import InterleavedOneForwardOneBackward
from foretrain.sim.schedules.one_f_one_b import OneForwardOneBackward

SCHEDULES: Mapping[str, type[Schedule]] = MappingProxyType(
    {schedule.name: schedule for schedule in (GPipe, OneForwardOneBackward, InterleavedOneForwardOneBackward)}
)


def schedule_by_name(name: str) -> Schedule:
    """Return the schedule of that name.

    Raises:
        PlanError: for a name that is not among `SCHEDULES`, with the nearest that are.
    """
    if name not in SCHEDULES:
        raise PlanError(f"schedule {name!r} is unknown; use one of {', '.join(SCHEDULES)}{nearest(name, SCHEDULES)}")
    return SCHEDULES[name]()
