"""What frameworks keep beside the textbook's state, worked out by hand from their own documents and sources."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foretrain.models.model import Model
from foretrain.models.ops import Layout
from foretrain.models.transformer import build, transformer_from_dimensions
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import StageMemory
from foretrain.sim.recipe import Recipe
from foretrain.sim.recompute import recomputation
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.software.profile import LossMemory, Overlap, Software, TrainingState
from tests.sim import hand
from tests.sim.cases import gpt
from tests.sim.hand import ONE_F_ONE_B

GPT = gpt(layers=4, hidden=64, heads=4, vocab=1024, seq_len=32)
TOKENS, VOCAB = 32, 1024
DEVICE = hand.accelerator(
    peak_flop_per_s={"bf16": hand.TERA, "fp16": hand.TERA, "fp32": hand.TERA},
    matmul=replace(hand.accelerator().matmul, sustained={"bf16": 1.0, "fp16": 1.0}),
    attention={"flash2": hand.accelerator().attention["flash2"], "flash3": hand.accelerator().attention["flash2"]},
)  # fmt: skip
FSDP = TrainingState(parameter_bytes=0.0, gradient_bytes=4.0, master_bytes=4.0, gather_bytes=2.0, reduce_bytes=4.0)


def memory(software: Software, *, model: Model = GPT, batch: int = 8, precision: str = "bf16", **plan: object) -> tuple[StageMemory, ...]:
    made, recipe = Plan(**plan), Recipe(global_batch=batch, precision=precision, optimizer="adam")  # type: ignore[arg-type]
    return simulate(model, hand.cluster(nodes=4, device=DEVICE), made, recipe, software=software).memory


@pytest.mark.parametrize(
    ("precision", "fixed", "shared"), [("fp16", 4.0, 16.0), ("bf16", 6.0, 12.0), ("fp32", 8.0, 8.0)]
)  # fmt: skip
@pytest.mark.parametrize("dp", [1, 2, 8])
def test_megatron_keeps_the_bytes_of_its_own_table(precision: str, fixed: float, shared: float, dp: int) -> None:
    """With the distributed optimizer over d ranks 4 + 16/d, 6 + 12/d and 8 + 8/d bytes per parameter (Megatron-LM, dist_optimizer.md)."""
    (only,) = memory(load_software("megatron-lm"), precision=precision, dp=dp, zero=1)
    state = sum(only.components[part] for part in ("parameters", "gradients", "optimizer"))
    assert state == pytest.approx(GPT.parameters * (fixed + shared / dp))


@pytest.mark.parametrize(("precision", "fixed", "shared"), [("fp16", 4.0, 16.0), ("bf16", 8.0, 12.0)])
def test_deepspeed_keeps_gradients_twice_in_bf16_and_copies_those_it_updates_in_fp16(precision: str, fixed: float, shared: float) -> None:
    """bf16: weight 2, gradient 2, its fp32 sum 4; fp16: weight 2, gradient 2, an fp32 copy of the shard's. Master and moments 12."""
    (only,) = memory(load_software("megatron-deepspeed"), precision=precision, dp=4, zero=1)
    state = sum(only.components[part] for part in ("parameters", "gradients", "optimizer"))
    assert state == pytest.approx(GPT.parameters * (fixed + shared / 4))


def test_accumulating_in_fp32_spares_the_copy_for_the_update() -> None:
    """fp16 with fp32 gradients is 6 + 12/d, as bf16; bf16 with 16-bit gradients 4 + 16/d, as fp16."""
    for precision, dtype, bytes_each in (("fp16", "fp32", 6 + 12 / 8), ("bf16", "bf16", 4 + 16 / 8)):
        recipe = Recipe(global_batch=8, precision=precision, optimizer="adam", grad_dtype=dtype)
        software = load_software("megatron-lm")
        (only,) = simulate(GPT, hand.cluster(device=DEVICE), Plan(dp=8, zero=1), recipe, software=software).memory
        state = sum(only.components[part] for part in ("parameters", "gradients", "optimizer"))
        assert state == pytest.approx(GPT.parameters * bytes_each)


@pytest.mark.parametrize(("elements", "copied"), [(1000.0, 1000.0), (1e12, float(GPT.parameters))])
def test_gradients_copied_to_be_reduced_take_a_bucket_or_all(elements: float, copied: float) -> None:
    """4 bytes each; none where nothing is reduced."""
    software = hand.software(overlap=replace(hand.NO_OVERLAP, copied_elements=elements))
    (two,), (one,) = memory(software, dp=2), memory(software)
    assert two.components["buffers"] == copied * 4
    assert one.components["buffers"] == 0.0


def test_gathered_parameters_are_copied_out_of_a_buffer_for_one_layer_and_the_next() -> None:
    """Two layers of 10⁶ parameters in 2 bytes are whole, with a gradient of 4; FSDP2's buffer takes as much as two layers again."""
    model = hand.linear_model(layers=6)
    plain = hand.software(state=FSDP, overlap=hand.OVERLAP)
    copying = replace(plain, overlap=replace(hand.OVERLAP, gather_copied=True))
    (without,), (with_copy,) = (memory(software, model=model, dp=4, zero=3) for software in (plain, copying))
    assert without.components["buffers"] == 2 * (2e6 + 4e6)
    assert with_copy.components["buffers"] == 2 * (2e6 + 4e6) + 2 * 2e6


def test_the_ends_of_the_model_are_gathered_together() -> None:
    """Embedding and head in one buffer, where they are wider than a layer, and the layer after them."""
    copying = hand.software(state=FSDP, overlap=replace(hand.OVERLAP, gather_copied=True))
    plain = hand.software(state=FSDP, overlap=hand.OVERLAP)
    (with_copy,), (without,) = (memory(software, dp=4, zero=3) for software in (copying, plain))
    layer = 12 * 64**2 + 13 * 64
    ends = VOCAB * 64 + TOKENS * 64 + 2 * 64
    assert with_copy.components["buffers"] - without.components["buffers"] == 2 * (max(ends, layer) + layer)


@pytest.mark.parametrize(("overlap", "whole"), [(hand.NO_OVERLAP, 1), (hand.OVERLAP, 2)])
def test_no_gradient_is_there_before_its_pass(overlap: Overlap, whole: int) -> None:
    """Where activations weigh more, the peak is before the first backward pass: 6 · 2·10⁷ bytes, and 2·10⁶ a layer."""
    (only,) = memory(hand.software(overlap=overlap), model=hand.linear_model(layers=6, tokens=10_000), batch=4, dp=4, zero=3)
    assert only.components["activations"] == 6 * 2e7
    assert only.components["buffers"] == whole * 2e6


def test_the_loss_holds_what_the_framework_s_kernels_hold() -> None:
    """At its peak: `kept` and `beside` bytes of every logit, on top of what all layers have saved."""
    logits = TOKENS * VOCAB
    bare = memory(hand.software(loss=LossMemory(kept_bytes=0.0)))[0].components["activations"]
    eager = memory(hand.software(loss=load_software("torchtitan").loss))[0].components["activations"]
    compiled = memory(hand.software(loss=load_software("torchtitan-compiled-loss").loss))[0].components["activations"]
    assert eager - bare == logits * (4 + 4 + 4 + 2)
    assert compiled - bare == logits * (2 + 2)


def test_a_cut_vocabulary_holds_its_part_of_the_logits() -> None:
    """Over 4 ranks a quarter of them, with one more fp32 tensor (torch's loss_parallel)."""
    logits = TOKENS * VOCAB // 4
    bare = memory(hand.software(loss=LossMemory(kept_bytes=0.0)), tp=4)[0].components["activations"]
    cut = memory(hand.software(loss=load_software("torchtitan").loss), tp=4)[0].components["activations"]
    assert cut - bare == logits * (4 + 4 + 4 + 4 + 2)


def test_the_per_op_policy_saves_every_other_product() -> None:
    """Llama 3 8B, per token in bf16: input 4096, Q 4096, V 1024, attention 4096 and 4 bytes a head, gate 14336, down 4096.

    A compiler keeps no result of the down-projection: it is only added. torchtitan counts Q, K, V, O, gate, up, down from one.
    """
    llama = build(transformer_from_dimensions(
        "llama", name="8B", layers=32, hidden=4096, heads=32, kv_heads=8, ffn_hidden=14336, vocab=128256, seq_len=8192,
    ))  # fmt: skip
    ((layer, _),) = llama.layers
    layout = Layout(micro_batch=2, flash=True)
    rows = 2 * 8192
    eager = rows * (2 * (4096 + 4096 + 1024 + 4096 + 14336 + 4096) + 4 * 32)
    kept = {name: recomputation("selective", name).kept_bytes(layer, layout) for name in ("alternate_products", "alternate_products_read")}
    assert kept == {"alternate_products": eager, "alternate_products_read": eager - rows * 2 * 4096}


@pytest.mark.parametrize("microbatches", [1, 3, 8])
def test_a_stage_holds_what_it_has_sent_until_it_runs_backward(microbatches: int) -> None:
    """Beside the inputs of its products, 1000 × 1000 × 2 bytes for each of min(m, p - s) micro-batches; the last stage sends nothing."""
    model, stages = hand.linear_model(layers=8, boundary=True), 4
    plain, holding = hand.software(), hand.software(outputs_held=True)
    without, with_sent = (
        memory(software, model=model, batch=microbatches, pp=stages, schedule=ONE_F_ONE_B) for software in (plain, holding)
    )  # fmt: skip
    more = [after.components["activations"] - before.components["activations"] for before, after in zip(without, with_sent, strict=True)]
    assert more == [min(microbatches, stages - stage) * 2e6 for stage in range(stages - 1)] + [0.0]


@pytest.mark.parametrize("schedule", [ONE_F_ONE_B, hand.GPIPE])
def test_what_was_sent_is_freed_in_the_end(schedule: object) -> None:
    """The timeline's memory comes back to the state."""
    software, plan = hand.software(outputs_held=True), Plan(pp=2, dp=2, schedule=schedule)  # type: ignore[arg-type]
    prediction = simulate(GPT, hand.cluster(), plan, Recipe(global_batch=8), software=software)
    ends = {point.rank: point.in_use_bytes for point in prediction.timeline().memory}
    held = {rank: sum(prediction.memory[rank].components[part] for part in ("parameters", "gradients", "optimizer")) for rank in ends}
    assert ends == pytest.approx(held)


def test_the_allocator_reserves_all_but_the_context() -> None:
    """Two meters of one peak."""
    (only,) = memory(hand.software(fragmentation=0.1, context_bytes=1e9))
    assert only.reserved_bytes == pytest.approx(only.peak_bytes - 1e9)
