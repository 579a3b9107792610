"""The data-parallel degree that fills a cluster, where the user leaves it open."""

from __future__ import annotations

from dataclasses import replace

from foretrain.errors import PlanError
from foretrain.hardware.cluster import Cluster
from foretrain.sim.plan import Plan


def fill(plan: Plan, cluster: Cluster) -> Plan:
    """Return `plan` with the `dp` that occupies every accelerator of `cluster`.

    Raises:
        PlanError: where tp × pp is more than the cluster has or does not divide it; the message names what would.
    """
    copy, have = plan.tp * plan.pp * plan.cp, cluster.accelerators
    if copy > have:
        nodes = -(-copy // cluster.node.accelerators)
        raise PlanError(
            f"{_copy(plan)} needs {copy} accelerators, but {cluster.name} has {have}; "
            f"use at least {nodes} nodes or smaller degrees"
        )
    if have % copy:
        pairs = _nearest_degrees(plan, have)
        raise PlanError(
            f"{_copy(plan)} = {copy} does not divide the {have} accelerators of {cluster.name}; use {pairs}, "
            "or give --dp to leave accelerators unused"
        )
    return replace(plan, dp=have // copy)


def _copy(plan: Plan) -> str:
    return f"tp={plan.tp} × pp={plan.pp}" + (f" × cp={plan.cp}" if plan.cp > 1 else "")


def _nearest_degrees(plan: Plan, have: int) -> str:
    """Return the pipeline degrees nearest to the plan's that divide the cluster at its tp, else the tp nearest at its pp."""
    stages = [pp for pp in range(1, have // (plan.tp * plan.cp) + 1) if have % (plan.tp * plan.cp * pp) == 0]
    if stages:
        near = sorted(sorted(stages, key=lambda pp: abs(pp - plan.pp))[:3])
        return f"pp of {', '.join(map(str, near))}"
    tensor = [tp for tp in range(1, have + 1) if have % tp == 0]
    near = sorted(sorted(tensor, key=lambda tp: abs(tp - plan.tp))[:3])
    return f"tp of {', '.join(map(str, near))}"
