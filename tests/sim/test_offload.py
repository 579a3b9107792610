"""State and activations in the host's memory: bytes and seconds worked out by hand, and which copies hide."""

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
from foretrain.software.profile import Software
from tests.sim import hand
from tests.sim.hand import GIGA, GPIPE, TERA

quick = settings(deadline=None, derandomize=True, max_examples=25)
LAYERS, CELLS = 4, 1e6
HOST, LINK = 100 * GIGA, 10 * GIGA


def step(
    *, dp: int = 8, batch: int | None = None, link: float = LINK, software: Software | None = None, optimizer: str = "adamw", **plan: Any
) -> Prediction:
    """Return a step of four layers of a million weights on devices with 10 GB/s to a host whose memory moves 100 GB/s."""
    cluster = hand.cluster(device=hand.accelerator(host_bytes_per_s=link), host_memory_bytes_per_s=HOST)
    recipe = Recipe(global_batch=batch or dp, optimizer=optimizer)
    return simulate(hand.linear_model(layers=LAYERS), cluster, Plan(dp=dp, **plan), recipe, software=software or hand.software())


def components(prediction: Prediction) -> dict[str, float]:
    """Return bytes of memory at the peak by component."""
    return dict(prediction.memory[0].components)


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_the_optimizer_is_on_the_host(zero: int) -> None:
    """No bytes of it, nor of gradient shards, stay; parameters and whole gradients do."""
    held, shards = components(step(zero=zero, offload="optimizer")), 8 if zero == 3 else 1
    assert held["optimizer"] == 0.0
    assert held["gradients"] == (4 * LAYERS * CELLS if zero < 2 else 0.0)
    assert held["parameters"] == 2 * LAYERS * CELLS / shards


@quick
@given(st.integers(1, 8), st.sampled_from((0, 1)))
def test_updating_takes_the_memory_of_the_host(replicas: int, zero: int) -> None:
    """4 + 2 · (4 + 8) + 2 bytes a weight of everybody on the node at 100 GB/s; 2 bytes out and 2 back over each link.

    Without overlap the gradients wait as well.
    """
    found = step(dp=replicas, zero=zero, offload="optimizer")
    updated = LAYERS * CELLS / (replicas if zero else 1)
    update_s = updated * 30 * replicas / HOST
    assert found.breakdown["host"] == pytest.approx(update_s + 2 * updated * 2 / LINK, rel=1e-9)
    assert found.breakdown["optimizer"] == 0.0


def test_gradients_leave_behind_backward() -> None:
    """With overlap nothing of them is waited for: the copy of the last, 25 us, is done before its reduction, 35 us."""
    found = step(zero=2, offload="optimizer", software=hand.software(overlap=hand.OVERLAP))
    updated = LAYERS * CELLS / 8
    after_s = updated * (30 * 8 / HOST + 2 / LINK)
    assert found.breakdown["host"] == pytest.approx(after_s, rel=1e-9)


def test_parameters_come_from_the_host_before_each_gather() -> None:
    """A shard of 2 bytes a weight for both passes; nothing of it stays."""
    found, plain = step(zero=3, offload="parameters"), step(zero=3)
    assert components(found)["parameters"] == 0.0
    waited = found.breakdown["host"] - plain.breakdown["host"]
    copied_s, gathered_s = (2 * LAYERS * CELLS * 2 / 8 / LINK), 2 * LAYERS * 7 / 8 * CELLS * 2 / (100 * GIGA)
    assert waited == pytest.approx(copied_s, rel=1e-9)
    assert found.step_s - plain.step_s == pytest.approx(max(copied_s, gathered_s) - gathered_s, rel=1e-6)


@quick
@given(st.floats(0.1, 100.0))
def test_activations_leave_and_return_beside_the_passes(ratio: float) -> None:
    """Three of four layers' 2 MB go out while the next runs forward (f = 2 ms) and come back while the later runs backward (4 ms).

    Forward, each copy of c seconds hides behind f; at the end the last one is waited for only as far as it outlasts its layer.
    """
    copy_s = 2e-3 * ratio / 10
    found, plain = step(dp=1, link=2e6 / copy_s, offload="activations"), step(dp=1)
    late = 3 * max(0.0, copy_s - 2e-3) + 3 * max(0.0, copy_s - 4e-3)
    assert found.step_s - plain.step_s == pytest.approx(late, rel=1e-9, abs=1e-12)
    assert components(plain)["activations"] == LAYERS * 2e6
    assert components(found)["activations"] == 2 * 2e6


@pytest.mark.parametrize("plan", [{"pp": 2}, {"pp": 4, "schedule": GPIPE}, {"zero": 3, "dp": 2}, {"zero": 2, "dp": 2, "recompute": "full"}])
def test_offloaded_activations_take_less_memory_and_no_less_time(plan: dict[str, Any]) -> None:
    """In pipelines and beside sharding; when the step is done nothing is left over."""
    arguments = {"dp": 1, "batch": 8, **plan}
    plain, found = step(**arguments), step(**arguments, offload="activations")
    assert max(found.peak_memory_bytes) <= max(plain.peak_memory_bytes)
    assert found.step_s >= plain.step_s * (1 - 1e-12)
    assert all(value >= 0.0 for stage in found.memory for value in stage.components.values())
    ends = {point.rank: point.in_use_bytes for point in found.timeline().memory}
    static = [sum(stage.components[name] for name in ("parameters", "gradients", "optimizer")) for stage in found.memory]
    assert [ends[rank] for rank in sorted(ends)] == pytest.approx(static)


def test_a_faster_link_never_takes_longer() -> None:
    """All three parts."""
    parts = "optimizer,parameters,activations"
    steps = [step(zero=3, batch=16, link=link, offload=parts).step_s for link in (1e9, 1e10, 1e11, TERA)]
    assert steps == sorted(steps, reverse=True)


@pytest.mark.parametrize("stages", [1, 2])
def test_samples_that_are_not_copied_ahead_are_waited_for(stages: int) -> None:
    """1000 tokens and their targets of 8 bytes over 10 GB/s: for all three micro-batches, or those that no bubble of a pipeline hides."""
    waits = hand.software(host=replace(hand.NO_HOST, input_overlapped=False))
    plan: dict[str, Any] = {"dp": 1, "batch": 3, "pp": stages}
    late = step(**plan, software=waits).step_s - step(**plan).step_s
    copies = late / (16_000 / LINK)
    assert copies == pytest.approx(3.0) if stages == 1 else 1.0 - 1e-6 <= copies <= 3.0 + 1e-6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"offload": "optimiser"}, "did you mean 'optimizer'"),
        ({"offload": ","}, "names nothing"),
        ({"offload": "parameters", "zero": 1}, "zero=1 keeps them whole"),
        ({"offload": "optimizer", "optimizer": "muon"}, "muon multiplies matrices"),
    ],
)
def test_what_cannot_lie_on_the_host_is_refused(arguments: dict[str, Any], words: str) -> None:
    """Naming both options."""
    with pytest.raises(PlanError, match=words):
        step(**arguments)


def test_a_host_without_its_memory_s_rate_is_refused() -> None:
    """It names the field."""
    with pytest.raises(PlanError, match="states no host_memory_bandwidth"):
        simulate(hand.linear_model(layers=1), hand.cluster(), Plan(offload="optimizer"), Recipe(global_batch=1), software=hand.software())


@pytest.mark.parametrize(
    "plan",
    [
        {"offload": "activations", "pp": 2}, {"offload": "activations,optimizer", "zero": 2, "dp": 4},
        {"replication": "first-device", "dp": 4},
        {"offload": "activations,optimizer,parameters", "zero": 3, "dp": 4}, {"gradient_sync": "micro-batch", "dp": 4, "pp": 2},
        {"gradient_compression": "powersgd:2", "gradient_sync": "micro-batch", "dp": 4},
        {"recompute": "full:2", "zero": 2, "dp": 2, "pp": 2},
    ],
)  # fmt: skip
def test_jumps_and_kernels_tell_the_same(plan: dict[str, Any]) -> None:
    """Two hundred micro-batches: with the steady state jumped, and kernel by kernel."""
    made = Plan(**plan)
    cluster = hand.cluster(device=hand.accelerator(host_bytes_per_s=LINK), host_memory_bytes_per_s=HOST)
    software = hand.software(overlap=hand.OVERLAP)
    model, recipe = hand.linear_model(layers=4), Recipe(global_batch=200 * made.dp)
    fast, slow = (simulate(model, cluster, made, recipe, software=software, detail=detail) for detail in ("segment", "op"))
    assert fast.step_s == pytest.approx(slow.step_s, rel=1e-3)
    assert fast.peak_memory_bytes == pytest.approx(slow.peak_memory_bytes)
    assert sum(fast.breakdown.values()) == pytest.approx(fast.step_s, rel=1e-9)
    assert sum(slow.breakdown.values()) == pytest.approx(slow.step_s, rel=1e-9)
