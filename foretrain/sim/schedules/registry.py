"""The schedules by name, for the command line and plan files; the engine takes any `Schedule`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from foretrain.errors import PlanError, nearest
from foretrain.sim.schedules.base import Schedule
from foretrain.sim.schedules.dualpipe import DualPipe
from foretrain.sim.schedules.dualpipe_v import DualPipeV
from foretrain.sim.schedules.gpipe import GPipe
from foretrain.sim.schedules.interleaved import InterleavedOneForwardOneBackward
from foretrain.sim.schedules.interleaved_zb import InterleavedZeroBubble
from foretrain.sim.schedules.looped_bfs import LoopedBFS
from foretrain.sim.schedules.one_f_one_b import OneForwardOneBackward
from foretrain.sim.schedules.zb_h1 import ZeroBubbleH1
from foretrain.sim.schedules.zb_h2 import ZeroBubbleH2
from foretrain.sim.schedules.zb_v import ZeroBubbleV

SCHEDULES: Mapping[str, type[Schedule]] = MappingProxyType(
    {
        schedule.name: schedule
        for schedule in (
            GPipe, OneForwardOneBackward, InterleavedOneForwardOneBackward, LoopedBFS, ZeroBubbleH1, ZeroBubbleH2, InterleavedZeroBubble,
            ZeroBubbleV, DualPipe, DualPipeV,
        )
    }
)  # fmt: skip


def schedule_by_name(name: str) -> Schedule:
    """Return the schedule of that name.

    Raises:
        PlanError: for a name that is not among `SCHEDULES`, with the nearest that are.
    """
    if name not in SCHEDULES:
        raise PlanError(f"schedule {name!r} is unknown; use one of {', '.join(SCHEDULES)}{nearest(name, SCHEDULES)}")
    return SCHEDULES[name]()
