"""Joules of a step: of all GPUs that run it, or of the processor packages of each machine."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch

from foretrain.sim.plan import Plan
from foretrain.sim.replication import FIRST_DEVICE
from foretrain.validate.meter import LEAST_WINDOW_S, Energy, Meter, open_meter
from foretrain.validate.training.peers import Peers

MARGIN = 1.2
"""Of the window over the least one, for steps that turn out quicker than their median."""


def energy_of(step: Callable[[], object], step_s: float, plan: Plan, peers: Peers, device: str) -> dict[str, Any]:
    """Return what a record says of the energy of a step, measured over a window of equal steps on all processes."""
    meters = _meters(plan, device)
    missing = next((reason for own in peers.each([one.reason for one in meters]) for reason in own if reason), "")
    if missing:
        return {"source": "unavailable", "reason": missing}
    count = peers.decided(math.ceil(MARGIN * LEAST_WINDOW_S / step_s))
    peers.meet()
    for one in meters:
        one.start()
    for _ in range(count):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    peers.meet()
    return _sum([one for own in peers.each([one.stop() for one in meters]) for one in own], count)


def _meters(plan: Plan, device: str) -> list[Meter]:
    """Return the meters that this process reads: of its own GPUs, or of the packages that one process a machine reads for all."""
    if device == "cpu":
        return [open_meter("cpu")] if os.environ.get("LOCAL_RANK", "0") == "0" else []
    gpus = range(plan.dp) if plan.replication == FIRST_DEVICE else [torch.cuda.current_device()]
    return [open_meter("cuda", index) for index in gpus]


def _sum(found: list[Energy], steps: int) -> dict[str, Any]:
    lost = next((one for one in found if one.joules is None), None)
    if lost is not None:
        return lost.data(steps)
    whole = Energy(joules=sum(one.joules or 0.0 for one in found), source=found[0].source, window_s=min(one.window_s for one in found))
    return whole.data(steps)
