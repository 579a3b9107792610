"""Exchanges of gradients whose weights' half runs apart: as many bytes as whole backward passes exchange, and what cannot be together."""

from __future__ import annotations

from typing import Any

import pytest

from foretrain.errors import PlanError
from foretrain.hardware.load import load_cluster
from foretrain.models.matmul import Linear
from foretrain.models.ops import Layout
from foretrain.sim.low_precision import SCALINGS, model_in_few_bits
from foretrain.sim.plan import Plan
from foretrain.sim.program import ISSUE
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.registry import schedule_by_name
from foretrain.sim.segment import DATA, HOST
from foretrain.sim.split import held_bytes
from foretrain.software.load import load_software
from tests.sim.cases import Case, gpt, quiet

MICROBATCHES = 8
WAYS: tuple[dict[str, Any], ...] = (
    {}, {"gradient_sync": "micro-batch"}, {"zero": 1}, {"zero": 2}, {"zero": 2, "offload": "optimizer"},
    {"gradient_compression": "powersgd:4"}, {"gradient_compression": "topk:0.01", "gradient_sync": "micro-batch"},
    {"offload": "optimizer,activations"}, {"replication": "diloco", "local_steps": 10},
)  # fmt: skip
WHOLE_AND_SPLIT = (("1f1b", "zb-h1", 1), ("interleaved-1f1b", "interleaved-zb", 2))


def case(schedule: str, vpp: int = 1, software: str = "megatron-lm", **plan: Any) -> Case:
    """Return a job of four stages and two replicas."""
    return Case(
        model=gpt(layers=8), cluster=load_cluster("dgx-a100-80gb:1"), software=load_software(software),
        plan=Plan(dp=2, pp=4, vpp=vpp, schedule=schedule_by_name(schedule), **plan), recipe=Recipe(global_batch=2 * MICROBATCHES),
    )  # fmt: skip


def moved_bytes(job: Case, kind: str) -> list[float]:
    """Return the bytes that each rank puts on its links, or to and from its host, in a step."""
    lowered = job.lowered().job
    return [
        sum(
            repeat.times * lowered.collectives[step.operand].cost.wire_bytes
            for repeat in program.repeats
            for step in repeat.body
            if step.opcode == ISSUE and lowered.collectives[step.operand].kind == kind
        )
        for program in lowered.programs
    ]


@pytest.mark.parametrize("software", ["megatron-lm", "pytorch-fsdp"])
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(("whole", "split", "vpp"), WHOLE_AND_SPLIT)
def test_a_split_pass_exchanges_what_a_whole_one_does(whole: str, split: str, vpp: int, way: dict[str, Any], software: str) -> None:
    """Gradients are complete with the weights' half, once a micro-batch as after a whole pass; nothing is reduced after the other."""
    for kind in (DATA, HOST):
        expected = moved_bytes(case(whole, vpp, software, **way), kind)
        assert moved_bytes(case(split, vpp, software, **way), kind) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("schedule", ["zb-h1", "dualpipe"])
@pytest.mark.parametrize("way", [way for way in WAYS if "replication" not in way], ids=str)
def test_a_jump_and_every_micro_batch_agree(schedule: str, way: dict[str, Any]) -> None:
    """The steady state with exchanges inside is the same as played in full, with and without anything hidden."""
    job = case(schedule, **way)
    for software in (job.software, quiet(job.software)):
        one = Case(model=job.model, cluster=job.cluster, plan=job.plan, recipe=job.recipe, software=software)
        assert one.played(jump=True).step_s == pytest.approx(one.played().step_s, rel=1e-9)


def test_copies_of_a_pipeline_compress_what_they_add_up() -> None:
    """Two copies of the model reduce gradients though there is one replica; of stages without a table, factors of rank 4 are few."""
    job = case("dualpipe").with_plan(dp=1, gradient_compression="powersgd:4")
    compressed, whole = moved_bytes(job, DATA), moved_bytes(job.with_plan(gradient_compression=None), DATA)
    assert all(0 < few < all_of_it / 20 for few, all_of_it in zip(compressed[1:3], whole[1:3], strict=True))


def test_copies_of_a_pipeline_meet_in_every_step() -> None:
    """Replicas that seldom meet cannot keep two copies alike."""
    with pytest.raises(PlanError, match=r"schedule dualpipe keeps two copies.*replication=local-sgd does not"):
        case("dualpipe", replication="local-sgd", local_steps=10).lowered()


@pytest.mark.parametrize("way", [{"zero": 2}, {"zero": 3}, {"gradient_sync": "micro-batch"}], ids=str)
def test_a_deferred_gradient_is_not_reduced_as_it_comes(way: dict[str, Any]) -> None:
    """The output layer's gradient is whole at the end of the step only."""
    ((name, value),) = way.items()
    with pytest.raises(PlanError, match=rf"defer_embedding_wgrad.*{name}={value} reduces every gradient as it comes"):
        case("1f1b", defer_embedding_wgrad=True, **way).lowered()


@pytest.mark.parametrize("way", [{"zero": 1}, {"gradient_compression": "bf16"}, {"replication": "local-sgd", "local_steps": 3}], ids=str)
def test_a_deferred_gradient_is_exchanged_all_the_same(way: dict[str, Any]) -> None:
    """As many bytes as without; and its products run."""
    late, usual = (case("1f1b", software="pytorch-eager", defer_embedding_wgrad=late, **way) for late in (True, False))
    assert moved_bytes(late, DATA) == pytest.approx(moved_bytes(usual, DATA), rel=1e-12)
    assert late.predict().hardware_flop == pytest.approx(usual.predict().hardware_flop, rel=1e-12)


@pytest.mark.parametrize("precision", SCALINGS)
def test_what_a_split_pass_keeps_in_few_bits(precision: str) -> None:
    """A gradient is kept as it was cast; an input too where forward kept its cast, else in 16 bits, and is then cast with the weights'."""
    layout, cluster = Layout(micro_batch=1), load_cluster("dgx-b200:1")
    model = model_in_few_bits(gpt(layers=1), precision, cluster.accelerator, load_software("megatron-lm"), Plan())
    few = SCALINGS[precision]
    for block, _ in model.layers:
        for op in (op for op in block.ops if isinstance(op, Linear) and op.casts is not None):
            kept = op.tokens * (op.out_features * few.element_bytes + op.in_features * (few.element_bytes if few.both_ways else 2.0))
            alone = type(block)(name="one", steps=(op,), input_elements=op.tokens * op.in_features)
            assert held_bytes(alone, layout) == pytest.approx(kept, rel=1e-12)
            late = {kernel.name.rpartition(".")[2] for kernel in op.backward(layout) if kernel.weight_grad}
            assert late == {"wgrad", *(("bias_grad",) if op.bias else ()), *(() if few.both_ways else ("recast",))}
