"""Replicas that are kept alike otherwise than by an all-reduce in every step: seconds and bytes worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.software.profile import Software
from tests.sim import hand
from tests.sim.hand import GIGA, TERA

quick = settings(deadline=None, derandomize=True, max_examples=25)
LAYERS, WEIGHTS = 2, 2e6


def step(dp: int = 8, *, batch: int | None = None, nodes: int = 1, software: Software | None = None, **plan: Any) -> Prediction:
    """Return a step of two layers of a million weights; CPUs move 100 GB/s."""
    cluster = hand.cluster(nodes=nodes, host_memory_bytes_per_s=100 * GIGA)
    recipe = Recipe(global_batch=batch or dp)
    return simulate(hand.linear_model(layers=LAYERS), cluster, Plan(dp=dp, **plan), recipe, software=software or hand.software())


@quick
@given(st.integers(2, 8), st.integers(1, 1000), st.sampled_from(("local-sgd", "diloco")))
def test_a_step_has_its_share_of_a_seldom_exchange(replicas: int, steps: int, way: str) -> None:
    """An all-reduce of 4 bytes a weight in every H steps; DiLoCo moves 24 more for its outer step and keeps 8."""
    found, alone = step(replicas, replication=way, local_steps=steps), step(1)
    wire = 2 * (replicas - 1) / replicas * 4 * WEIGHTS / steps
    assert found.breakdown["data_parallel"] == pytest.approx(wire / (100 * GIGA), rel=1e-9)
    outer_s = 24 * WEIGHTS / steps / TERA if way == "diloco" else 0.0
    assert found.step_s - alone.step_s == pytest.approx(wire / (100 * GIGA) + outer_s, rel=1e-6)
    kept = found.memory[0].components["optimizer"] - alone.memory[0].components["optimizer"]
    assert kept == (8 * WEIGHTS if way == "diloco" else 0.0)


def test_the_longer_alone_the_faster() -> None:
    """Towards the step of one replica."""
    steps = [step(16, nodes=2, replication="diloco", local_steps=count).step_s for count in (1, 10, 100, 1000)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == pytest.approx(step(1).step_s, rel=1e-2)


@quick
@given(st.integers(2, 8), st.integers(1, 3))
def test_one_process_copies_weights_and_gradients_every_time(replicas: int, microbatches: int) -> None:
    """2 bytes a weight out before each forward pass and 4 a gradient in after each backward pass, over a port of 100 GB/s."""
    found = step(replicas, batch=replicas * microbatches, replication="first-device")
    assert found.breakdown["data_parallel"] == pytest.approx(microbatches * 6 * WEIGHTS / (100 * GIGA), rel=1e-9)


def test_one_process_launches_for_all() -> None:
    """Eight replicas of a job bound by its host take eight times its launches."""
    slow = hand.software(host=replace(hand.NO_HOST, launch_s=0.1))
    alone, together = step(1, software=slow), step(8, software=slow, replication="first-device")
    assert together.step_s == pytest.approx(8 * alone.step_s, rel=0.05)


@quick
@given(st.integers(1, 4), st.integers(1, 16))
def test_servers_are_as_fast_as_the_slower_side(nodes: int, servers: int) -> None:
    """4 bytes a weight pushed and 2 pulled over a NIC of 10 GB/s a worker, or servers of 80 GB/s for all; CPUs move 30 bytes."""
    workers = 8 * nodes
    found = step(workers, nodes=nodes, replication="parameter-server", servers=servers)
    rate = min(10 * GIGA, servers * 80 * GIGA / workers)
    assert found.breakdown["data_parallel"] == pytest.approx(6 * WEIGHTS / rate, rel=1e-9)
    assert found.breakdown["host"] == pytest.approx(30 * WEIGHTS / (servers * 100 * GIGA), rel=1e-9)
    assert found.memory[0].components["optimizer"] == 0.0


def test_a_bucket_waits_for_the_cycle() -> None:
    """Horovod's: a millisecond for each of two buckets, without overlap one after another."""
    overlap = replace(hand.NO_OVERLAP, gradient_reduce=True, gradient_bucket_bytes=1.0)
    cycled = hand.software(overlap=replace(overlap, cycle_s=1e-3))
    found, plain = step(software=cycled), step(software=hand.software(overlap=overlap))
    total = {one: each.breakdown["data_parallel"] + each.hidden["data_parallel"] for one, each in (("cycled", found), ("plain", plain))}
    assert total["cycled"] - total["plain"] == pytest.approx(2e-3, rel=1e-9)
    horovod = load_software("pytorch-horovod").overlap
    assert (horovod.gradient_bucket_bytes, horovod.cycle_s) == (2**27, 1e-3)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"replication": "allreduce"}, "did you mean 'all-reduce'"),
        ({"replication": "diloco"}, "needs local_steps"),
        ({"local_steps": 5}, "local_steps=5 is for replicas that seldom meet, but replication=all-reduce"),
        ({"servers": 2}, "servers=2 hold parameters, but replication=all-reduce"),
        ({"replication": "local-sgd", "local_steps": 5, "zero": 1}, "zero=1 shards state"),
        ({"replication": "first-device", "gradient_compression": "fp16"}, "gradient_compression=fp16 is about the all-reduce"),
        ({"replication": "first-device", "dp": 4, "tp": 2}, "tp=2 × pp=1 cuts them"),
        ({"replication": "first-device", "dp": 16, "nodes": 2}, "one node of 8, but dp=16"),
        ({"replication": "local-sgd", "local_steps": 5, "dp": 1}, "nobody to exchange with"),
        ({"replication": "parameter-server", "offload": "optimizer"}, "has it on the servers"),
    ],
)
def test_contradictions_are_refused(plan: dict[str, Any], words: str) -> None:
    """Naming both options, or the one that is missing."""
    with pytest.raises(PlanError, match=words):
        step(**plan)
