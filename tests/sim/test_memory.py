"""Memory worked out by hand: state by way of sharding, activations in flight by schedule, buffers of gathered parameters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.models.model import Model
from foretrain.models.ops import Layout
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import StageMemory
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.base import Schedule
from foretrain.sim.simulate import simulate
from foretrain.software.profile import Overlap, Software
from tests.sim import hand
from tests.sim.cases import gpt
from tests.sim.hand import GPIPE, INTERLEAVED, ONE_F_ONE_B

quick = settings(deadline=None, derandomize=True, max_examples=50)
LAYERS, HIDDEN, HEADS, VOCAB, SEQ = 8, 64, 4, 1000, 32
LAYER = 12 * HIDDEN**2 + 13 * HIDDEN
"""Weights of QKV, projection and MLP; biases 9h, two norms 4h."""
TABLE, POSITIONS, NORM = VOCAB * HIDDEN, SEQ * HIDDEN, 2 * HIDDEN
MODEL = gpt(layers=LAYERS, hidden=HIDDEN, heads=HEADS, vocab=VOCAB, seq_len=SEQ)


def stages(*, batch: int = 8, software: Software | None = None, model: Model | None = None, **plan: Any) -> tuple[StageMemory, ...]:
    """Return the memory of the stages of the small GPT in bf16 with Adam: 2 + 4 bytes kept per parameter, 4 + 8 updated."""
    made = Plan(**plan)
    used = software or hand.software()
    return simulate(model or MODEL, hand.cluster(nodes=4), made, Recipe(global_batch=batch), software=used).memory


def state(memory: StageMemory) -> tuple[float, float, float]:
    """Return parameters, gradients and optimizer in bytes."""
    return memory.components["parameters"], memory.components["gradients"], memory.components["optimizer"]


def test_one_device_holds_everything() -> None:
    """18 bytes per parameter."""
    parameters = LAYERS * LAYER + TABLE + POSITIONS + NORM
    assert MODEL.parameters == parameters
    (only,) = stages()
    assert state(only) == (2 * parameters, 4 * parameters, 12 * parameters)


@pytest.mark.parametrize(("zero", "kept", "updated"), [(0, 1, 1), (1, 1, 8), (3, 8, 8)])
def test_sharding_divides_what_it_shards(zero: int, kept: int, updated: int) -> None:
    """Over 8 replicas: nothing, the optimizer, or all. Rajbhandari et al., arXiv:1910.02054, figure 1."""
    parameters = MODEL.parameters
    (only,) = stages(dp=8, zero=zero)
    assert state(only) == (2 * parameters / kept, 4 * parameters / kept, 12 * parameters / updated)


def test_a_shard_group_smaller_than_the_replicas_divides_less() -> None:
    """8 replicas in groups of 2 (HSDP)."""
    (only,) = stages(dp=8, zero=3, shard=2)
    assert state(only) == (MODEL.parameters, 2 * MODEL.parameters, 6 * MODEL.parameters)


def test_stages_hold_their_layers_and_the_ends() -> None:
    """4 stages of 2 layers; the first has the table and positions, the last its tied copy of the table and the norm."""
    first, *inner, last = stages(pp=4)
    assert state(first)[0] == 2 * (2 * LAYER + TABLE + POSITIONS)
    assert [state(stage)[0] for stage in inner] == [2 * 2 * LAYER] * 2
    assert state(last)[0] == 2 * (2 * LAYER + TABLE + NORM)


def test_tensor_parallelism_divides_the_products_and_the_table() -> None:
    """Over 4 ranks; norms, positions and the biases added after a row-parallel product (2h a layer) are whole on each."""
    (only,) = stages(tp=4)
    parameters = LAYERS * (12 * HIDDEN**2 + 7 * HIDDEN) / 4 + LAYERS * 6 * HIDDEN + TABLE / 4 + POSITIONS + NORM
    assert state(only)[0] == pytest.approx(2 * parameters, rel=1e-12)


def test_full_precision_keeps_one_copy() -> None:
    """fp32: 4 bytes of parameter, 4 of gradient, 8 of Adam, no master copy."""
    prediction = simulate(MODEL, hand.cluster(), Plan(), Recipe(global_batch=1, precision="fp32"), software=hand.software())
    assert state(prediction.memory[0]) == (4 * MODEL.parameters, 4 * MODEL.parameters, 8 * MODEL.parameters)


@quick
@given(st.integers(1, 6), st.integers(1, 16), st.integers(1, 3), st.integers(1, 3))
def test_1f1b_holds_as_many_micro_batches_as_stages_follow(pp: int, microbatches: int, layers: int, micro_batch: int) -> None:
    """Stage s keeps min(m, p - s) inputs of 1000 × 1000 × 2 bytes per layer. Narayanan et al., arXiv:2104.04473, section 2.2.1."""
    model = hand.linear_model(layers=pp * layers)
    memory = stages(model=model, batch=microbatches * micro_batch, pp=pp, micro_batch=micro_batch, schedule=ONE_F_ONE_B)
    held = [min(microbatches, pp - stage) * layers * micro_batch * 2e6 for stage in range(pp)]
    assert [stage.components["activations"] for stage in memory] == held


@quick
@given(st.integers(1, 6), st.integers(1, 200))
def test_gpipe_holds_every_micro_batch(pp: int, microbatches: int) -> None:
    """M of them on every stage, jumped or played. Huang et al., arXiv:1811.06965, section 2.3."""
    memory = stages(model=hand.linear_model(layers=pp), batch=microbatches, pp=pp, schedule=GPIPE)
    assert [stage.components["activations"] for stage in memory] == pytest.approx([microbatches * 2e6] * pp)


@quick
@given(st.integers(2, 5), st.integers(1, 4), st.integers(2, 3))
def test_interleaving_holds_its_warm_up(pp: int, rounds: int, vpp: int) -> None:
    """Stage s keeps (v - 1)p + 2(p - s - 1) + 1 passes of a chunk, or all of them, as in Megatron-LM's schedule."""
    microbatches = rounds * pp
    memory = stages(model=hand.linear_model(layers=pp * vpp), batch=microbatches, pp=pp, vpp=vpp, schedule=INTERLEAVED)
    held = [min((vpp - 1) * pp + 2 * (pp - stage - 1) + 1, vpp * microbatches) for stage in range(pp)]
    assert [stage.components["activations"] for stage in memory] == pytest.approx([passes * 2e6 for passes in held])


@pytest.mark.parametrize("schedule", [ONE_F_ONE_B, GPIPE])
def test_nothing_is_held_when_the_step_is_done(schedule: Schedule) -> None:
    """The timeline's memory comes back to the state."""
    prediction = simulate(MODEL, hand.cluster(), Plan(pp=2, schedule=schedule), Recipe(global_batch=6), software=hand.software())
    ends = {point.rank: point.in_use_bytes for point in prediction.timeline().memory}
    held = {rank: sum(state(prediction.memory[rank])) for rank in ends}
    assert ends == pytest.approx(held)


def test_full_recomputation_keeps_the_inputs_and_one_layer() -> None:
    """2sbh per layer, the ends, and the rest of a layer while it runs again, less what the head has given back by then."""
    layout = Layout(micro_batch=1, flash=True, fused=hand.software().fused)
    (layer, _), (embedding,), (head,) = MODEL.layers[0], MODEL.prologue, MODEL.epilogue
    saved = {block.name: sum(op.saved_bytes(layout) for op in block.ops) for block in (embedding, layer, head)}
    (none,), (full,) = stages(batch=1), stages(batch=1, recompute="full")
    inputs = 2 * SEQ * HIDDEN
    ends = saved["embedding"] + saved["head"]
    assert none.components["activations"] == ends + LAYERS * saved["layer"]
    again = max(0.0, saved["layer"] - inputs - saved["head"])
    assert full.components["activations"] == ends + LAYERS * inputs + again


@pytest.mark.parametrize(("overlap", "whole"), [(hand.NO_OVERLAP, 1), (hand.OVERLAP, 2)])
def test_gathered_parameters_are_whole_one_or_two_layers_at_a_time(overlap: Overlap, whole: int) -> None:
    """A layer of 10⁶ parameters in 2 bytes and its gradient in 4 until it is reduced, and the next one where it is gathered ahead."""
    software = hand.software(overlap=overlap)
    (only,) = stages(model=hand.linear_model(layers=6), dp=4, zero=3, software=software)
    assert only.components["buffers"] == whole * (2e6 + 4e6)


def test_the_framework_s_share_and_the_sum() -> None:
    """A tenth on top of what is allocated, 1 GB beside it; components sum to the peak, which is held against the capacity."""
    software = hand.software(fragmentation=0.1, context_bytes=1e9)
    (only,) = stages(software=software)
    allocated = sum(value for name, value in only.components.items() if name != "framework")
    assert only.components["framework"] == pytest.approx(0.1 * allocated + 1e9)
    assert only.peak_bytes == pytest.approx(1.1 * allocated + 1e9)
    assert only.capacity_bytes == 80e9
    assert only.fits


def test_what_does_not_fit_is_predicted_all_the_same() -> None:
    """10 layers of 10⁹ parameters take 180 GB."""
    prediction = simulate(
        hand.linear_model(layers=10, tokens=8, width=31623), hand.cluster(), Plan(), Recipe(global_batch=1), software=hand.software()
    )
    assert not prediction.fits
    assert prediction.peak_memory_bytes[0] == pytest.approx(180e9, rel=1e-3)
    assert prediction.step_s > 0.0
