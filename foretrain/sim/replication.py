"""How data-parallel replicas are kept alike, as `--replication` says it, and what contradicts it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from foretrain.errors import PlanError, nearest

if TYPE_CHECKING:
    from foretrain.hardware.cluster import Cluster
    from foretrain.sim.plan import Plan
    from foretrain.software.profile import Software

ALL_REDUCE, LOCAL_SGD, DILOCO, FIRST_DEVICE, SERVER = "all-reduce", "local-sgd", "diloco", "first-device", "parameter-server"
WAYS = (ALL_REDUCE, LOCAL_SGD, DILOCO, FIRST_DEVICE, SERVER)
LOCAL = (LOCAL_SGD, DILOCO)


def check_replication(plan: Plan) -> None:
    """Refuse ways that there are not, and options that contradict the way.

    Raises:
        PlanError: names both options.
    """
    way = plan.replication
    if way not in WAYS:
        raise PlanError(f"replication={way!r} is unknown; use one of {', '.join(WAYS)}{nearest(str(way), WAYS)}")
    _figures(plan, way)
    if way != ALL_REDUCE:
        _contradictions(plan, way)


def _figures(plan: Plan, way: str) -> None:
    """Refuse figures of another way, and a way without its figure."""
    if (plan.local_steps is not None) != (way in LOCAL):
        needs = f"replication={way} needs local_steps, the steps between exchanges; give it, such as 500"
        stray = f"local_steps={plan.local_steps} is for replicas that seldom meet, but replication={way}; use {' or '.join(LOCAL)}"
        raise PlanError(needs if plan.local_steps is None else stray)
    if plan.servers is not None and way != SERVER:
        raise PlanError(f"servers={plan.servers} hold parameters, but replication={way} has none; use replication {SERVER}")


def _contradictions(plan: Plan, way: str) -> None:
    """Refuse what only an all-reduce of gradients knows, and cuts of what is copied whole."""
    for name, value in (("gradient_sync", plan.gradient_sync), ("gradient_compression", plan.gradient_compression)):
        if value is not None:
            raise PlanError(f"{name}={value} is about the all-reduce of gradients, but replication={way}; leave out one of them")
    if plan.zero:
        raise PlanError(f"zero={plan.zero} shards state between replicas, but replication={way} keeps them whole; use zero 0")
    if way in (FIRST_DEVICE, SERVER) and plan.tp * plan.pp > 1:
        raise PlanError(f"replication={way} copies whole models, but tp={plan.tp} × pp={plan.pp} cuts them; use tp=1 and pp=1")


def check_meeting(plan: Plan, cluster: Cluster) -> None:
    """Refuse replicas that have nobody to exchange with, or that one process cannot reach.

    Raises:
        PlanError: names the degree that would do.
    """
    if plan.replication == ALL_REDUCE:
        return
    if plan.dp == 1:
        raise PlanError(f"replication={plan.replication}, but dp=1 has nobody to exchange with; raise dp, or use {ALL_REDUCE}")
    most = cluster.node.accelerators
    if plan.replication == FIRST_DEVICE and plan.dp > most:
        raise PlanError(
            f"replication={FIRST_DEVICE} is one process on one node of {most}, but dp={plan.dp}; use dp up to {most}, or {ALL_REDUCE}"
        )


def one_process(software: Software, plan: Plan) -> Software:
    """Return the software as its host launches for all replicas in turn, where one process drives them."""
    if plan.replication != FIRST_DEVICE:
        return software
    return replace(software, host=replace(software.host, launch_s=software.host.launch_s * plan.dp))
