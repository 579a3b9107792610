"""Samples that a loader makes ready, and logs that cost the host its lead: closed forms, and nothing by default."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.sim.engine import Engine
from foretrain.sim.lower import lower
from foretrain.sim.maxplus import evaluate
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.profile import HostCost
from tests.sim import hand

MODEL = hand.linear_model(layers=4)
quick = settings(deadline=None, derandomize=True, max_examples=30)


def predicted(batch: int = 8, *, nodes: int = 1, detail: str = "segment", plan: Plan | None = None, **host: Any) -> Prediction:
    software = hand.software(host=replace(hand.NO_HOST, **host))
    return simulate(MODEL, hand.cluster(nodes=nodes), plan or Plan(), Recipe(global_batch=batch), software=software, detail=detail)


@quick
@given(st.integers(1, 12), st.floats(1e-4, 1.0), st.integers(1, 16), st.sampled_from([(1, 1), (2, 1), (1, 2), (4, 2)]))
def test_the_step_is_the_longer_of_its_own_work_and_the_loader_s(
    microbatches: int, sample_s: float, workers: int, dp_pp: tuple[int, int]
) -> None:
    """One node makes all samples of a step ready: batch · seconds a sample / workers, in either level of detail."""
    dp, pp = dp_pp
    batch, plan = microbatches * dp, Plan(dp=dp, pp=pp)
    ready = predicted(batch, plan=plan).step_s
    for detail in ("segment", "op"):
        found = predicted(batch, plan=plan, detail=detail, loader_sample_s=sample_s, loader_workers=workers)
        assert found.step_s == pytest.approx(max(ready, batch * sample_s / workers), rel=1e-9)
        assert sum(found.breakdown.values()) == pytest.approx(found.step_s, rel=1e-9)


def test_nodes_load_for_the_replicas_that_begin_on_them() -> None:
    """16 replicas on two nodes: 8 samples each."""
    assert predicted(16, nodes=2, plan=Plan(dp=16), loader_sample_s=1.0).step_s == pytest.approx(8.0)


def test_a_replica_s_tensor_parallel_ranks_load_once() -> None:
    """8 ranks of one replica, 8 samples."""
    assert predicted(8, plan=Plan(tp=8), loader_sample_s=1.0).step_s == pytest.approx(8.0)


def test_waiting_for_the_loader_is_the_host_s() -> None:
    """All that the step grows by."""
    ready, waits = predicted(), predicted(loader_sample_s=1.0)
    assert waits.breakdown["host"] == pytest.approx(waits.step_s - ready.step_s)
    assert waits.energy_j > ready.energy_j


@pytest.mark.parametrize("dp", [1, 4])
def test_a_loader_that_makes_nothing_ready_adds_its_time_to_every_micro_batch(dp: int) -> None:
    """5 micro-batches of 2 samples for each replica, 3 workers a node, one node."""
    plan = Plan(dp=dp, micro_batch=2)
    ready = predicted(10 * dp, plan=plan).step_s
    waits = predicted(10 * dp, plan=plan, loader_sample_s=0.03, loader_workers=3, loader_overlapped=False)
    assert waits.step_s == pytest.approx(ready + 5 * 2 * dp * 0.01)


def test_a_loader_that_nobody_waits_for_has_no_workers() -> None:
    """It would change nothing."""
    for facts in ({"loader_workers": 4}, {"loader_overlapped": False}):
        with pytest.raises(PlanError, match=r"host.loader_sample_s=0"):
            predicted(**facts)


def test_max_plus_waits_for_the_loader_too() -> None:
    """The recursion knows the instruction."""
    software = hand.software(host=replace(hand.NO_HOST, loader_sample_s=0.5))
    job = lower(place(MODEL, hand.cluster(), Plan(pp=2), Recipe(global_batch=4)), software).job
    assert evaluate(job).step_s == pytest.approx(Engine(job).play().step_s) == pytest.approx(2.0)


def test_the_timeline_of_a_step_that_waits_is_as_long() -> None:
    """Power over it is the energy of the prediction."""
    waits = predicted(loader_sample_s=1.0)
    assert waits.timeline().step_s == waits.step_s


LAUNCHED = HostCost(launch_s=1e-3, launch_gap_s=0.0, collective_s=0.0, blocking=False, step_s=0.0, microbatch_s=0.0)


def test_logging_takes_its_time_as_often_as_it_comes() -> None:
    """Every step, and every tenth; without launches there is no lead to lose."""
    plain = predicted().step_s
    assert predicted(log_s=0.5).step_s == pytest.approx(plain + 0.5)
    assert predicted(log_s=0.5, log_every=10).step_s == pytest.approx(plain + 0.05)
    assert predicted(log_every=10).step_s == pytest.approx(plain)


@pytest.mark.parametrize("every", [1, 2, 10, 1000])
def test_a_host_that_is_not_waited_for_keeps_its_lead(every: int) -> None:
    """A launch of 1 ms before a step whose kernels take longer each: it is waited for once, in the step after a log."""
    def step_s(**host: Any) -> float:
        software = hand.software(host=replace(LAUNCHED, **host))
        return simulate(MODEL, hand.cluster(), Plan(), Recipe(global_batch=8), software=software).step_s

    free = simulate(MODEL, hand.cluster(), Plan(), Recipe(global_batch=8), software=hand.software()).step_s
    synced = step_s()
    assert synced - free == pytest.approx(1e-3)
    assert step_s(log_every=every) == pytest.approx(free + 1e-3 / every)


def test_a_step_that_launches_bind_has_no_lead_to_lose() -> None:
    """100 ms a launch: the host is behind all along."""
    def step_s(**host: Any) -> float:
        software = hand.software(host=replace(LAUNCHED, launch_s=0.1, **host))
        return simulate(MODEL, hand.cluster(), Plan(), Recipe(global_batch=8), software=software).step_s

    assert step_s(log_every=10) == pytest.approx(step_s(), rel=1e-3)


def test_a_device_that_waits_for_each_launch_takes_both_one_after_the_other() -> None:
    """CUDA_LAUNCH_BLOCKING=1: nothing is issued ahead, so the step is the device's time and a millisecond for each kernel."""
    def found(**host: Any) -> Any:
        software = hand.software(host=replace(hand.NO_HOST, **host))
        return simulate(MODEL, hand.cluster(), Plan(), Recipe(global_batch=8), software=software)

    free, waits = found(), found(launch_s=1e-3, blocking=True)
    launches = sum(one.launches for one in free.timeline("op").slices)
    assert waits.step_s == pytest.approx(free.step_s + 1e-3 * launches)
    assert waits.breakdown["host"] == pytest.approx(1e-3 * launches, rel=0.2)
