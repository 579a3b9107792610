"""What a partly frozen model keeps, exchanges and costs: by hand on round numbers, and against full training."""

from __future__ import annotations

from typing import Any

import pytest

from foretrain.hardware.load import load_cluster
from foretrain.models.load import load_model
from foretrain.models.model import Model
from foretrain.sim.lower import lower
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software

CLUSTER = load_cluster("dgx-a100-80gb:1")
RECIPE = Recipe(global_batch=16)
FULL = load_model("gpt3-1.3b")
LORA = FULL.with_lora(16, ["qkv", "projection"])
LLAMA = load_model("llama-7b")


def states(model: Model, plan: Plan, software: str = "megatron-lm") -> Any:
    return lower(place(model, CLUSTER, plan, RECIPE), load_software(software)).states


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_state_of_what_is_frozen_is_its_weights_alone(zero: int) -> None:
    """2 bytes a frozen parameter; 2, 4 and 12 of weight, gradient, and master with moments for each that trains (Megatron-LM, bf16)."""
    plan = Plan(dp=8, zero=zero)
    (state,) = states(LORA, plan)
    trained, frozen = LORA.trained_parameters, LORA.parameters - LORA.trained_parameters
    shards = 8 if zero == 3 else 1
    software = load_software("megatron-lm").state
    assert state.trained == trained
    assert state.parameter_bytes == pytest.approx((frozen * 2 + trained * software.parameter_bytes) / shards)
    assert state.gradient_bytes == pytest.approx(trained * software.gradient_bytes / shards)
    assert state.optimizer_bytes == pytest.approx(trained * (software.master_bytes + 8) / (8 if zero else 1))


def test_a_framework_that_keeps_master_copies_only_keeps_frozen_weights_in_16_bits() -> None:
    """FSDP shards fp32 masters; of what is never updated, 2 bytes are left."""
    (state,) = states(LORA, Plan(dp=8, zero=3), "pytorch-fsdp")
    trained, each = LORA.trained_parameters, load_software("pytorch-fsdp").state.parameter_bytes
    assert state.parameter_bytes == pytest.approx(((LORA.parameters - trained) * 2 + trained * each) / 8)


@pytest.mark.parametrize("plan", [Plan(dp=8), Plan(dp=8, zero=1), Plan(dp=4, tp=2)], ids=["ddp", "zero1", "tp"])
def test_only_gradients_that_are_made_are_reduced(plan: Plan) -> None:
    """Bytes that cross the links in data-parallel collectives are in proportion to what trains; adapters lie whole on both tp ranks."""
    full, lora = (_bytes(model, plan, "data") for model in (FULL, LORA))
    (before,), (after,) = states(FULL, plan), states(LORA, plan)
    assert lora / full == pytest.approx(after.trained / before.trained, rel=1e-6)


def test_fully_sharded_weights_are_gathered_all_the_same() -> None:
    """Frozen or not, forward and backward; what stands still is not gathered for a backward pass that it has not."""
    plan = Plan(dp=8, zero=3)
    units = {f"0.{number}" for number in range(FULL.depth + 2)}
    assert _gathered(LORA, plan, "forward", "deepspeed-zero3") == units
    assert _gathered(LORA, plan, "backward", "deepspeed-zero3") == units - {"0.0"}
    still = LLAMA.frozen("embedding", "layers")
    assert _gathered(still, plan, "backward", "deepspeed-zero3") == {f"0.{LLAMA.depth + 1}"}


def test_the_root_of_fsdp_is_gathered_once() -> None:
    """Embedding, last norm and head are one unit, which backward finds whole; layers are gathered again unless they stand still."""
    plan = Plan(dp=8, zero=3)
    layers = {f"0.{number + 1}" for number in range(FULL.depth)}
    assert _gathered(LORA, plan, "forward", "pytorch-fsdp") == layers | {"0.ends"}
    assert _gathered(LORA, plan, "backward", "pytorch-fsdp") == layers
    assert not _gathered(LLAMA.frozen("embedding", "layers"), plan, "backward", "pytorch-fsdp")


def _bytes(model: Model, plan: Plan, kind: str) -> float:
    job = lower(place(model, CLUSTER, plan, RECIPE), load_software("megatron-lm")).job
    return sum(one.cost.wire_bytes for one in job.collectives if one.kind.startswith(kind))


def _gathered(model: Model, plan: Plan, direction: str, software: str) -> set[str]:
    """Return the units whose parameters are gathered for a direction."""
    job = lower(place(model, CLUSTER, plan, RECIPE), load_software(software)).job
    return {one.name.split()[-1] for one in job.collectives if one.name.startswith(f"all-gather {direction}")}


@pytest.mark.parametrize("plan", [
    Plan(dp=8), Plan(dp=8, zero=3), Plan(dp=4, tp=2), Plan(dp=2, pp=4), Plan(dp=8, recompute="full"), Plan(dp=8, recompute="selective"),
    Plan(dp=2, tp=2, pp=2, sequence_parallel=True, zero=1), Plan(dp=2, pp=2, tp=2, unfold=frozenset({"tp"})),
], ids=str)  # fmt: skip
def test_training_less_takes_less(plan: Plan) -> None:
    """Time and memory: adapters below full training, a frozen trunk below adapters on all of it."""
    tuned = (LLAMA, LLAMA.with_lora(16), LLAMA.frozen("embedding", "layers"))
    full, lora, head = (simulate(model, CLUSTER, plan, RECIPE) for model in tuned)
    assert lora.step_s < full.step_s
    assert lora.model_flop < full.model_flop
    assert max(lora.peak_memory_bytes) < max(full.peak_memory_bytes)
    assert head.step_s < lora.step_s
    assert max(head.peak_memory_bytes) < max(full.peak_memory_bytes)
    assert sum(lora.breakdown.values()) == pytest.approx(lora.step_s)


@pytest.mark.parametrize("plan", [Plan(dp=8), Plan(dp=2, pp=4), Plan(dp=8, zero=3), Plan(dp=2, pp=4, recompute="full")], ids=str)
def test_a_trunk_that_stands_still_runs_forward_only(plan: Plan) -> None:
    """Hardware FLOPs: the forward pass, and of the head the backward pass; a pipeline's first stages keep no activations."""
    model = load_model("llama3-8b", 2048).frozen("embedding", "layers")
    prediction = simulate(model, CLUSTER, plan, RECIPE)
    assert prediction.hardware_flop < 1.02 * prediction.model_flop
    if plan.pp > 1:
        assert prediction.memory[0].components["activations"] < 0.1 * prediction.memory[-1].components["activations"]
    fine = simulate(model, CLUSTER, plan, RECIPE, detail="op")
    assert fine.step_s == pytest.approx(prediction.step_s, rel=1e-2)


def test_what_stands_still_may_come_before_the_first_bucket() -> None:
    """Layers without a backward pass, alone in front of the gradients that are reduced, of software without a cost per micro-batch."""
    job = lower(place(LLAMA.frozen("embedding", "layers"), CLUSTER, Plan(dp=8), RECIPE), load_software("pytorch-1.10")).job
    assert sum(one.name.startswith("all-reduce") for one in job.collectives) >= 1
    assert simulate(LLAMA.frozen("embedding", "layers"), CLUSTER, Plan(dp=8), RECIPE, software=load_software("pytorch-1.10")).step_s > 0.0
