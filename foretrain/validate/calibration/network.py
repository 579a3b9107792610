"""Measured collectives and sends beside what a machine's fabric says of them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from foretrain.errors import PlanError
from foretrain.sim.algorithms.base import wire_share
from foretrain.sim.collectives import collective, send
from foretrain.sim.curve import lone_span
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.calibration.robust import Knob, Vector
from foretrain.validate.records import Record

HEADROOM = 1.2
"""A fabric's bandwidth is what no message exceeded, and a little: its efficiency says what they reach."""
KNOBS = (
    Knob(path="scale_up.efficiency", low=0.005, high=1.0, width=1.0),
    Knob(path="scale_up.base_latency_s", low=1e-7, high=0.05, width=2.0),
    Knob(path="scale_up.step_latency_s", low=1e-7, high=0.05, width=2.0),
    Knob(path="scale_up.half_bytes_per_rank", low=1.0, high=1e8, width=2.0),
    Knob(path="scale_up.point_to_point_efficiency", low=0.005, high=1.0, width=1.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One measured collective, or send: bytes of the full tensor, ranks, seconds."""

    kind: str
    size_bytes: float
    ranks: int
    seconds: float
    key: str


def messages_of(records: Sequence[Record]) -> list[Message]:
    """Return the collectives and sends among the microbenchmarks; barriers and what was skipped are left out."""
    found = []
    for record in records:
        data = record.data
        if record.kind != "micro" or "skipped" in data or data["bench"] not in ("collective", "send"):
            continue
        shape = data["shape"]
        kind, size = shape.get("op", "send"), float(shape["bytes"])
        if kind != "barrier" and size > 0.0:
            seconds = data["seconds"]["median"]
            found.append(Message(kind=kind, size_bytes=size, ranks=int(shape.get("ranks", 2)), seconds=seconds, key=record.key))
    return found


def wide_enough(machine: Machine, messages: Sequence[Message]) -> Machine:
    """Return the machine with a fabric that the fastest message fits, by the bytes that must leave each rank."""
    path, fastest = "scale_up.bandwidth_bytes_per_s", max((_leaving_bytes(one) / one.seconds for one in messages), default=0.0)
    return machine.set({path: fastest * HEADROOM}) if fastest > machine.number(path) else machine


def _leaving_bytes(message: Message) -> float:
    """Return what leaves a rank at least: its share of the wire, of reductions in a switch the tensor once."""
    share = 1.0 if message.kind == "send" else min(1.0, wire_share(message.kind, message.ranks))
    return share * message.size_bytes


def errors_of(machine: Machine, messages: Sequence[Message]) -> Vector:
    """Return log(priced / measured) of messages; NaN for groups that the machine does not hold."""
    return np.array([_error(machine, one) for one in messages])


def _error(machine: Machine, message: Message) -> float:
    try:
        if message.kind == "send":
            priced = send(message.size_bytes, machine.cluster, crosses=False, flows=1)
        else:
            priced = collective(message.kind, message.size_bytes, lone_span(machine.cluster, message.ranks), machine.cluster)
    except PlanError:
        return float("nan")
    return float(np.log(priced.total_s / message.seconds))


def tabulated(machine: Machine, messages: Sequence[Message]) -> Machine:
    """Return the machine with the table of the messages: the middle of those alike."""
    found: dict[str, dict[tuple[float, float], list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in messages:
        found[one.kind][float(one.ranks), one.size_bytes].append(one.seconds)
    rows = tuple(
        (kind, tuple((*at, float(f"{statistics.median(times):.4g}")) for at, times in sorted(table.items())))
        for kind, table in sorted(found.items())
    )
    node = machine.cluster.node
    up = replace(node.scale_up, measured=rows)
    return replace(machine, cluster=replace(machine.cluster, node=replace(node, scale_up=up)))


def overlap_loss(records: Sequence[Record]) -> float | None:
    """Return the share of its rate that compute lost beside a collective: the middle of what was measured; None where nothing was."""
    benches = [record.data for record in records if record.kind == "micro" and record.data.get("bench") == "overlap"]
    losses = [data["loss"] for data in benches if "loss" in data]
    return min(0.95, max(0.0, statistics.median(losses))) if losses else None
