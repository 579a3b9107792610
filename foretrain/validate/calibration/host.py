"""What the host pays for an op, and the optimizer for its tensors, from microbenchmarks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from foretrain.sim.corrections import Streams
from foretrain.sim.optimizer import update_kernel
from foretrain.sim.optimizer_rules import RULES
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.records import Record

FORWARD = ("grad", "module_grad", "linear")
"""Benches of an op that joins a graph."""
MANY, SMALL_PIECE = 100, 2**12
"""Tensors, and elements of each, from and to which an update is all host."""
LARGEST_PIECE = 2**16
"""Elements of a tensor from which an update is bound by what it moves, not by its launches."""


def host_costs(machine: Machine, records: Sequence[Record]) -> Machine:
    """Return the machine with the host's time per op, of forward and backward alike, the least time of a kernel, and the gap after it."""
    costs = {record.data["shape"]["what"]: record.data["seconds"]["median"] for record in _benches(records, "launch")}
    forward = [costs[what] for what in FORWARD if what in costs]
    found: dict[str, float] = {}
    if forward and "backward" in costs:
        found["software.host.launch_s"] = (statistics.median(forward) + costs["backward"]) / 2
    if "view" in costs:
        found["software.host.view_s"] = costs["view"]
    if "graph" in costs:
        found["accelerator.kernel_floor_s"] = costs["graph"]
    if "graph" in costs and "gap" in costs:
        found["software.host.launch_gap_s"] = max(0.0, costs["gap"] - costs["graph"])
    each = _tensor_s(records)
    if each is not None:
        found["software.host.tensor_s"] = each
    return machine.set({path: float(f"{value:.3g}") for path, value in found.items()})


def _tensor_s(records: Sequence[Record]) -> float | None:
    """Return the host's time for a tensor and an operation of an update, from updates of many small tensors; None without them."""
    found = []
    for record in _benches(records, "optimizer"):
        shape, host_s = record.data["shape"], record.data.get("host_s", record.data["seconds"])
        if shape["name"] in RULES and shape["tensors"] >= MANY and shape["elements"] / shape["tensors"] <= SMALL_PIECE:
            found.append(host_s["median"] / (shape["tensors"] * RULES[shape["name"]].eager_launches))
    return statistics.median(found) if found else None


def optimizer_slowness(machine: Machine, records: Sequence[Record]) -> dict[str, float]:
    """Return how much longer an optimizer's update takes per byte than elementwise kernels: the middle over large tensors."""
    measured = machine.accelerator.measured
    if measured is None or not measured.streams:
        return {}
    curve, ratios, host = Streams(measured.streams), [], machine.software.host
    for record in _benches(records, "optimizer"):
        shape = record.data["shape"]
        if shape["name"] not in RULES or shape["elements"] / shape["tensors"] < LARGEST_PIECE:
            continue
        kernel = update_kernel(shape["name"], machine.software, shape["elements"], shape["tensors"])
        spent = (host.tensor_s or host.launch_s) * kernel.launches if host.blocking else 0.0
        plain = curve.seconds(kernel.moved_bytes / kernel.launches) * kernel.launches / machine.software.stream_scale
        ratios.append(max(record.data["seconds"]["median"] - spent, 0.1 * record.data["seconds"]["median"]) / plain)
    return {"optimizer": round(statistics.median(ratios), 3)} if ratios else {}


def _benches(records: Sequence[Record], name: str) -> list[Record]:
    return [
        record for record in records
        if record.kind == "micro" and record.data.get("bench") == name and "seconds" in record.data
        and record.data["shape"].get("busy_ranks", 1) == 1
    ]  # fmt: skip
