"""Wall power of nodes that train, measured beside predicted: the mean over a run, and its rise over the idle node.

What a row calls idle is what its node drew before the start. Where loading and warm-up fall into that time it is no idle, and the rise
over it no rise (one row reads 4.8 kW on a node that other rows read at 2.5 kW). An idle node draws the same whatever it will train, so
the rise is also held against the least reading of the system's rows; for rows without a reading of their own that is the only one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from foretrain.errors import ForetrainError, ProfileError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.sim.energy import baseline_w
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.validate.answers import Progress
from foretrain.validate.benchmarks import Benchmark, benchmark_named
from foretrain.validate.cells import Row, needed, number, text, whole
from foretrain.validate.classic_machines import cluster_of
from foretrain.validate.few_bits import FEW_BITS, SAID, in_few_bits
from foretrain.validate.runs_file import Line
from foretrain.validate.summary import Outcome

QUANTITIES = ("mean_power_w", "power_rise_w", "power_rise_over_least_idle_w")
SYSTEM = ("submitter", "system", "accelerator")
"""What names a node that idles alike."""


def power_outcomes(lines: Sequence[Line], *, progress: Progress | None = None) -> list[Outcome]:
    """Return the outcomes of every line: mean power of a node, rise over its own idle reading and over the least of its system."""
    outcomes, least = [], _least_idle(lines)
    for index, line in enumerate(lines):
        outcomes += list(_outcomes(index, line, least.get(_system(line.cells))))
        if progress is not None:
            progress(index + 1, len(lines))
    return outcomes


def _least_idle(lines: Sequence[Line]) -> dict[tuple[str, ...], float]:
    """Return the least idle power that was read of each system."""
    found: dict[tuple[str, ...], float] = {}
    for line in lines:
        try:
            idle_w = None if line.fault else number(line.cells, "idle_node_power_W")
        except ForetrainError:
            continue
        if idle_w is not None:
            found[_system(line.cells)] = min(idle_w, found.get(_system(line.cells), idle_w))
    return found


def _system(row: Row) -> tuple[str, ...]:
    return tuple(text(row, column) for column in SYSTEM)


def _outcomes(index: int, line: Line, least_w: float | None) -> Iterator[Outcome]:
    blank = _blank(index, line.cells)
    try:
        if line.fault:
            raise ProfileError(line.fault)
        measured, idle = number(line.cells, "mean_node_power_W"), number(line.cells, "idle_node_power_W")
        busy_w, idle_w, assumed = _predicted(line.cells)
    except ForetrainError as error:
        yield replace(blank, reason=str(error).replace("\n", " "))
        return
    yield replace(blank, measured=measured, predicted=busy_w, assumed=assumed)
    if measured is not None and idle is not None:
        yield replace(blank, quantity=QUANTITIES[1], measured=measured - idle, predicted=busy_w - idle_w, assumed=assumed)
    if measured is not None and least_w is not None:
        yield replace(blank, quantity=QUANTITIES[2], measured=measured - least_w, predicted=busy_w - idle_w, assumed=assumed)


def _predicted(row: Row) -> tuple[float, float, tuple[str, ...]]:
    """Return the watts of a node while it trains and while it does not, and what was assumed."""
    benchmark = benchmark_named(text(row, "benchmark"))
    model, (cluster, notes) = benchmark.model(), _cluster(row)
    batch, ranks = needed(row, "global_batch", "the global batch"), cluster.accelerators
    few = in_few_bits(model, cluster.accelerator)
    plan, recipe = _job(benchmark, batch, ranks, FEW_BITS if few else "fp16")
    prediction = simulate(model, cluster, plan, recipe, software=load_software(benchmark.software))
    return prediction.power["node_mean_w"], idle_node_w(cluster), (*notes, *benchmark.assumed, *((SAID,) if few else ()))


def _cluster(row: Row) -> tuple[Cluster, tuple[str, ...]]:
    nodes, per_node = whole(row, "n_nodes") or 1, needed(row, "acc_per_node", "the accelerators of a node")
    named = {"accelerator": text(row, "accelerator").replace("NVIDIA", ""), "n_accelerators": str(nodes * per_node), "n_nodes": str(nodes),
             "node_type": text(row, "system")}  # fmt: skip
    return cluster_of(named, lambda name: load_cluster(f"{name}:1"))


def _job(benchmark: Benchmark, batch: int, ranks: int, precision: str) -> tuple[Plan, Recipe]:
    tensor = benchmark.tensor
    replicas = ranks // tensor
    micro = max(1, batch // replicas)
    plan = Plan(dp=replicas, tp=tensor, micro_batch=micro, sequence_parallel=tensor > 1)
    return plan, Recipe(global_batch=replicas * micro, precision=precision, optimizer=benchmark.optimizer)


def idle_node_w(cluster: Cluster) -> float:
    """Return the watts that an idle node draws from the wall."""
    baseline = baseline_w(cluster)
    power = cluster.accelerator.power
    awake_w = power.idle_w - min(power.rest_w, power.idle_w) if power.rest_w else 0.0
    watts = sum(baseline.values()) - cluster.facility.network_w_per_accelerator - awake_w
    return (watts * cluster.node.accelerators - cluster.node.host_busy_w) / cluster.node.supply_efficiency


def _blank(index: int, row: Row) -> Outcome:
    name = "|".join(text(row, column) for column in ("version", "submitter", "system", "benchmark"))
    return Outcome(
        row=index, id=name, quantity=QUANTITIES[0], measured=None, predicted=None, fits=None, assumed=(), reason="",
        source=text(row, "submitter"), accelerator=text(row, "accelerator").removeprefix("NVIDIA "), framework=text(row, "benchmark"),
        layout="", subset="core", complete=True, config_key=name,
    )  # fmt: skip
