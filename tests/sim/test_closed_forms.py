"""What the engine must reproduce, worked out on paper, over random sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.hardware.load import load_cluster
from foretrain.sim.engine import Engine
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.base import Schedule
from foretrain.sim.simulate import simulate
from tests.sim import hand
from tests.sim.cases import gpt
from tests.sim.hand import GIGA, GPIPE, INTERLEAVED, ONE_F_ONE_B, TERA
from tests.sim.jobs import Pipeline

quick = settings(deadline=None, derandomize=True, max_examples=50)
seconds = st.floats(0.01, 10.0)
sizes = st.integers(1, 8192)


@quick
@given(st.sampled_from((GPIPE, ONE_F_ONE_B)), st.integers(1, 10), st.integers(1, 40), seconds, seconds)
def test_equal_stages_take_m_plus_p_minus_1_slots(
    schedule: Schedule, stages: int, microbatches: int, forward_s: float, backward_s: float
) -> None:
    """Without communication: (m + p - 1)(f + b).

    Huang et al., arXiv:1811.06965, section 2.3; Narayanan et al., arXiv:2104.04473, section 2.2.
    """
    job = Pipeline(schedule, stages=stages, microbatches=microbatches).job([(forward_s, backward_s)] * stages)
    assert Engine(job).play().step_s == pytest.approx((microbatches + stages - 1) * (forward_s + backward_s), rel=1e-12)


@quick
@given(st.integers(2, 8), st.integers(1, 6), st.integers(1, 4), seconds, seconds)
def test_interleaving_divides_the_bubble_by_the_chunks(stages: int, rounds: int, chunks: int, forward_s: float, backward_s: float) -> None:
    """Where the micro-batches divide by the stages the bubble is (p - 1)(f + b) / v. Narayanan et al., arXiv:2104.04473, section 2.2.2."""
    pipeline = Pipeline(INTERLEAVED, stages=stages, microbatches=rounds * stages, chunks=chunks)
    played = Engine(pipeline.job([(forward_s / chunks, backward_s / chunks)] * (stages * chunks))).play()
    bubble = (stages - 1) * (forward_s + backward_s) / chunks
    assert played.step_s == pytest.approx(rounds * stages * (forward_s + backward_s) + bubble, rel=1e-12)
    assert [rank.bubble_s for rank in played.ranks] == pytest.approx([bubble] * stages, rel=1e-9)


@quick
@given(st.integers(2, 6), st.integers(1, 30), seconds, st.floats(1.0, 3.0), st.floats(0.0, 1.0))
def test_a_slow_stage_sets_the_pace(stages: int, microbatches: int, slot_s: float, slower: float, where: float) -> None:
    """GPipe with one stage that takes k slots: fill and drain cost a slot for each other stage, the m micro-batches k each."""
    slow = min(stages - 1, int(where * stages))
    passes = [(slot_s * (slower if stage == slow else 1.0), 2 * slot_s * (slower if stage == slow else 1.0)) for stage in range(stages)]
    job = Pipeline(GPIPE, stages=stages, microbatches=microbatches).job(passes)
    assert Engine(job).play().step_s == pytest.approx((microbatches * slower + stages - 1) * 3 * slot_s, rel=1e-12)


@quick
@given(st.sampled_from((GPIPE, ONE_F_ONE_B)), st.integers(1, 4), st.integers(1, 12), st.integers(1, 3))
def test_a_simulated_model_of_equal_layers_takes_the_slots(schedule: Schedule, stages: int, microbatches: int, layers: int) -> None:
    """The same through every part, from a model: f = 2tw² / 1 TFLOP/s per layer, b = 2f, and an optimizer step at the end."""
    model = hand.linear_model(layers=stages * layers)
    plan, recipe = Plan(pp=stages, schedule=schedule), Recipe(global_batch=microbatches)
    prediction = simulate(model, hand.cluster(), plan, recipe, software=hand.software())
    slot_s = layers * 3 * 2 * 1000 * 1000**2 / TERA
    assert prediction.step_s - prediction.breakdown["optimizer"] == pytest.approx((microbatches + stages - 1) * slot_s, rel=1e-12)
    assert prediction.breakdown["bubble"] == pytest.approx((stages - 1) * slot_s, rel=1e-9)
    assert prediction.mfu == pytest.approx(microbatches * slot_s / prediction.step_s, rel=1e-12)


@quick
@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 3))
def test_a_simulated_model_interleaves(stages: int, rounds: int, chunks: int) -> None:
    """The bubble of a simulated model is that of 1F1B over the chunks."""
    model = hand.linear_model(layers=stages * chunks)
    plan, recipe = Plan(pp=stages, vpp=chunks, schedule=INTERLEAVED), Recipe(global_batch=rounds * stages)
    prediction = simulate(model, hand.cluster(), plan, recipe, software=hand.software())
    assert prediction.breakdown["bubble"] == pytest.approx((stages - 1) * 6e-3, rel=1e-9)


@quick
@given(sizes, sizes)
def test_one_device_and_one_op_is_the_roofline(tokens: int, width: int) -> None:
    """Three products, each the slower of 2tw² FLOPs at 1 TFLOP/s and 2(2tw + w²) bytes at 1 TB/s."""
    prediction = simulate(
        hand.linear_model(layers=1, tokens=tokens, width=width), hand.cluster(), Plan(), Recipe(global_batch=1), software=hand.software()
    )
    product_s = max(2 * tokens * width**2, 2 * (2 * tokens * width + width**2)) / TERA
    optimizer_s = width**2 * ((4 + 2 * (4 + 8) + 2) + 4 + 4) / TERA
    assert prediction.step_s == pytest.approx(3 * product_s + optimizer_s, rel=1e-12)
    bound = "math" if tokens * width >= 2 * tokens + width else "memory"
    assert prediction.breakdown[bound] == pytest.approx(3 * product_s, rel=1e-12)


@quick
@given(st.integers(2, 8), st.integers(1, 5000))
def test_gradients_of_replicas_take_the_ring_all_reduce(replicas: int, width: int) -> None:
    """4 bytes per parameter over ports of 100 GB/s inside a node: 2(n - 1)/n · bytes / bandwidth, and nothing hides it."""
    model = hand.linear_model(layers=1, tokens=10, width=width)
    plan, recipe = Plan(dp=replicas), Recipe(global_batch=replicas)
    prediction = simulate(model, hand.cluster(), plan, recipe, software=hand.software())
    reduce_s = 2 * (replicas - 1) / replicas * 4 * width**2 / (100 * GIGA)
    assert prediction.breakdown["data_parallel"] == pytest.approx(reduce_s, rel=1e-12)


@quick
@given(st.integers(2, 64))
def test_replicas_on_several_nodes_reduce_over_their_nics(nodes: int) -> None:
    """8 NICs of 10 GB/s are slower than a port of 100 GB/s: the ring over all 8·nodes devices runs at 80 GB/s."""
    ranks = 8 * nodes
    plan, recipe = Plan(dp=ranks), Recipe(global_batch=ranks)
    prediction = simulate(hand.linear_model(layers=1), hand.cluster(nodes=nodes), plan, recipe, software=hand.software())
    reduce_s = 2 * (ranks - 1) / ranks * 4e6 / (80 * GIGA)
    assert prediction.breakdown["data_parallel"] == pytest.approx(reduce_s, rel=1e-12)


@quick
@given(st.integers(1, 6), st.sampled_from((2, 4, 8)))
def test_sharded_state_gathers_twice_and_scatters_once(layers: int, replicas: int) -> None:
    """Fully sharded: each layer's 2-byte parameters are gathered before both passes, its 4-byte gradients reduce-scattered once.

    Rajbhandari et al., arXiv:1910.02054, section 7.2.2.
    """
    plan, recipe = Plan(dp=replicas, zero=3), Recipe(global_batch=replicas)
    prediction = simulate(hand.linear_model(layers=layers), hand.cluster(), plan, recipe, software=hand.software())
    wire_bytes = (replicas - 1) / replicas * layers * 1e6 * (2 + 2 + 4)
    assert prediction.breakdown["data_parallel"] == pytest.approx(wire_bytes / (100 * GIGA), rel=1e-12)


def test_a_boundary_costs_its_messages() -> None:
    """Two stages, one micro-batch: a tensor of 1000 × 1000 × 2 bytes goes forth and back over a port of 100 GB/s."""
    model = hand.linear_model(layers=2, boundary=True)
    prediction = simulate(model, hand.cluster(), Plan(pp=2), Recipe(global_batch=1), software=hand.software())
    assert prediction.step_s - prediction.breakdown["optimizer"] == pytest.approx(2 * 6e-3 + 2 * 2e6 / (100 * GIGA), rel=1e-12)


@quick
@given(st.integers(1, 16), st.floats(0.0, 2.0))
def test_reduction_hides_behind_backward(layers: int, speed: float) -> None:
    """With overlap, bucket by bucket (one layer each), only what the last backward passes leave is exposed.

    Reductions of r seconds start one by one as layers of b seconds end: the last ends at b·L + r, or at b + r·L where r > b.
    """
    overlap = replace(hand.NO_OVERLAP, gradient_reduce=True, gradient_bucket_bytes=1.0)
    backward_s, bandwidth = 4e-3, 4e6 / (4e-3 * (0.1 + speed))
    up = hand.fabric(bandwidth_bytes_per_s=bandwidth)
    prediction = simulate(
        hand.linear_model(layers=layers), hand.cluster(up=up), Plan(dp=2), Recipe(global_batch=2), software=hand.software(overlap=overlap)
    )
    reduce_s = 4e6 / bandwidth
    exposed_s = reduce_s if reduce_s <= backward_s else reduce_s * layers - backward_s * (layers - 1)
    assert prediction.breakdown["data_parallel"] == pytest.approx(exposed_s, rel=1e-9)
    assert prediction.hidden["data_parallel"] == pytest.approx(reduce_s * layers - exposed_s, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_naive_model_parallelism_is_a_pipeline_of_one_micro_batch(stages: int) -> None:
    """Equal layers one after another on several accelerators: each waits (p - 1)/p of the passes for the others."""
    model = gpt(layers=16, hidden=1024, vocab=64, seq_len=2048)
    plan = Plan(pp=stages, micro_batch=8, recompute="full")
    found = simulate(model, load_cluster("dgx-a100-80gb:1"), plan, Recipe(global_batch=8))
    passes = sum(found.breakdown[kind] for kind in ("bubble", "math", "memory", "overhead"))
    assert found.breakdown["bubble"] / passes == pytest.approx((stages - 1) / stages, rel=0.02)
