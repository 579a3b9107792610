"""What a prediction says of one rank: its classes, its kernels, and what it puts on the wire."""

from __future__ import annotations

from collections import Counter

import pytest

from foretrain.sim.plan import Plan
from foretrain.validate.comparing.collectives import agreement
from foretrain.validate.comparing.profile import predicted_profile, rank_of
from tests.validate.comparing.jobs import predicted

LAYERS, WIDTH, TOKENS = 12, 768, 128
PLANS = {
    "one": Plan(), "dp": Plan(dp=4), "zero": Plan(dp=4, zero=1), "fsdp": Plan(dp=4, zero=3), "tp": Plan(tp=2), "pp": Plan(pp=2, dp=2),
    "tp and dp": Plan(tp=2, dp=2),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_classes_are_those_of_the_prediction(name: str) -> None:
    """Averaged over the ranks, they are the breakdown of the same job played kernel by kernel, and sum to the step."""
    prediction = predicted(PLANS[name], detail="op")
    timeline = prediction.timeline("op")
    ranks = sum(rank.multiplicity for rank in timeline.ranks)
    for kind, seconds in prediction.breakdown.items():
        mean = sum(rank.breakdown[kind] * rank.multiplicity for rank in timeline.ranks) / ranks
        assert mean == pytest.approx(seconds, rel=1e-6, abs=1e-12)
    for rank in timeline.ranks:
        found = predicted_profile(timeline, rank)
        assert sum(found.breakdown.values()) == pytest.approx(found.step_s)
        assert "bubble" not in found.breakdown


def test_kernels_of_a_transformer() -> None:
    """Of each layer 4 products forward and 8 backward, and those of the logits; one attention each way."""
    prediction = predicted(Plan())
    timeline = prediction.timeline("op")
    found = predicted_profile(timeline, rank_of(timeline, prediction, 0))
    assert found.groups["matmul"].launches == 12 * LAYERS + 3
    assert {"norm", "pointwise", "loss", "embedding", "optimizer"} <= set(found.groups)
    assert found.phases.keys() == {"forward", "backward", "optimizer"}
    assert found.launches == sum(one.launches for one in timeline.slices)


def bytes_per_parameter(plan: Plan) -> dict[str, float]:
    """Return the bytes of rank 0's collectives by op, per parameter of the model."""
    prediction = predicted(plan)
    timeline = prediction.timeline("op")
    own = rank_of(timeline, prediction, 0).index
    found = [one for one in timeline.transfers if one.rank == own]
    return {op: sum(one.size_bytes for one in found if one.op == op) / prediction.parameters for op in {one.op for one in found}}


@pytest.mark.parametrize(
    ("zero", "sizes"),
    [
        (0, {"all_reduce": 4}),
        (1, {"reduce_scatter": 4, "all_gather": 4}),
        (3, {"reduce_scatter": 4, "all_gather": 8}),
    ],
)
def test_data_parallel_ranks_exchange_every_parameter(zero: int, sizes: dict[str, float]) -> None:
    """Weights and gradients in fp32 under autocast: reduced once; gathered once where the optimizer is sharded, twice where parameters are.

    Source: Rajbhandari et al., arXiv:1910.02054, section 7.
    """
    assert bytes_per_parameter(Plan(dp=4, zero=zero)) == pytest.approx(sizes)


def test_tensor_parallel_layers_reduce_four_times() -> None:
    """Two all-reduces of tokens × width each way and layer. Source: Shoeybi et al., arXiv:1909.08053, section 3."""
    prediction = predicted(Plan(tp=2), software="megatron-lm")
    timeline = prediction.timeline("op")
    one = TOKENS * WIDTH * 2
    # One more for the vocabulary-parallel embedding, one for the gradient that leaves its logits.
    assert sum(each.size_bytes == one for each in timeline.transfers if each.op == "all_reduce") == 4 * LAYERS + 2


def test_a_pipeline_sends_what_enters_the_next_stage() -> None:
    """Each micro-batch's activations go forward once, their gradients come back: 2 bytes a value of tokens × width."""
    plan = Plan(pp=2)
    prediction = predicted(plan, batch=4)
    timeline = prediction.timeline("op")
    messages = [one for one in timeline.transfers if one.op in ("send", "recv")]
    assert Counter((one.rank, one.op) for one in messages) == {(0, "send"): 4, (0, "recv"): 4, (1, "send"): 4, (1, "recv"): 4}
    assert {one.size_bytes for one in messages} == {TOKENS * WIDTH * 2}


def test_a_rank_is_of_its_stage() -> None:
    """With tp fastest and pp slowest, ranks 4 to 7 of 8 are of the second stage."""
    prediction = predicted(Plan(tp=2, dp=2, pp=2))
    timeline = prediction.timeline("op")
    assert [rank_of(timeline, prediction, rank).stage for rank in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_collectives_agree_with_themselves_and_not_with_others() -> None:
    """The predicted order and bytes agree; a swap, another size, one missing, and other buckets are each said; small ones say nothing."""
    prediction = predicted(Plan(dp=4, zero=1))
    timeline = prediction.timeline("op")
    own = [{"op": one.op, "bytes": one.size_bytes} for one in timeline.transfers if one.rank == 0]
    assert len({one["op"] for one in own}) == 2
    norm = {"op": "all_reduce", "bytes": 4}
    assert agreement(prediction, [norm, *own]).word == "agree"
    assert agreement(prediction, own[::-1]).word == "order differs"
    assert agreement(prediction, [*own[:-1], {**own[-1], "bytes": 2 * own[-1]["bytes"]}]).word == "bytes differ"
    assert agreement(prediction, own[:-1]).word == "differ"
    halves = [{**own[-1], "bytes": own[-1]["bytes"] / 2}] * 2
    assert agreement(prediction, [*own[:-1], *halves]).word == "bytes agree, counts differ"
    assert agreement(predicted(Plan()), [norm]).word == "none"
