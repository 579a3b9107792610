"""How sharding, recomputation, pipeline chunks and batches of published rows are read."""

from __future__ import annotations

import pytest

from foretrain.errors import PlanError
from foretrain.validate import layouts


@pytest.mark.parametrize(
    ("words", "zero", "shard"),
    [
        ("none (plain DP)", 0, None),
        ("DDP", 0, None),
        ("none (DDP, no gradient bucketing)", 0, None),
        ("DeepSpeed ZeRO-0", 0, None),
        ("ZeRO-1 over all DP ranks", 1, None),
        ("ZeRO-1 in groups of 8 DP ranks", 1, 8),
        ("Megatron distributed optimizer (ZeRO-1)", 1, None),
        ("DDP (760M/1.3B/2.7B configs set a distributed-optimizer strategy)", 1, None),
        ("FSDP SHARD_GRAD_OP", 2, None),
        ("ZeRO-2 style grad+opt sharding", 2, None),
        ("FSDP (optimizer+grad sharded, params not resharded after fwd)", 2, None),
        ("FSDP FULL_SHARD", 3, None),
        ("FSDP2 (ZeRO-3) shard=8", 3, 8),
        ("FSDP2 (ZeRO-3) shard=64", 3, None),
        ("HSDP (shard in node, replicate across)", 3, 8),
        ("FSDP=16", 3, 16),
        ("FSDP ici=16, DCN data parallel x4", 3, 16),
        ("ZeRO-3 (DeepSpeed), no model parallelism", 3, None),
    ],
)
def test_the_words_for_sharding_give_stage_and_group(words: str, zero: int, shard: int | None) -> None:
    """Of 64 replicas on nodes of eight."""
    assert layouts.sharding({"zero_or_fsdp": words}, dp=64, per_node=8, slices=1)[:2] == (zero, shard)


@pytest.mark.parametrize(
    ("words", "optimizer", "parts"),
    [
        ("ZeRO-3", "Adam", None),
        ("ZeRO-3 + full offload", "Adam", "optimizer,parameters"),
        ("ZeRO-3 +opt offload", "Adam", "optimizer"),
        ("ZeRO-3 +opt offload +param offload", "Adam", "optimizer,parameters"),
        ("ZeRO-3 + offload", "Adam (CPU/optimizer offload)", "optimizer"),
    ],
)
def test_the_words_for_offload_give_its_parts(words: str, optimizer: str, parts: str | None) -> None:
    """From both columns; without the part, refused."""
    assert layouts.offload({"zero_or_fsdp": words, "optimizer": optimizer}) == parts
    with pytest.raises(PlanError, match="what is offloaded"):
        layouts.offload({"zero_or_fsdp": "ZeRO-3 + offload", "optimizer": "Adam"})


def test_tpu_slices_shard_within_a_slice() -> None:
    """`ici=-1` takes what a slice holds; the data-centre network replicates."""
    row = {"zero_or_fsdp": "FSDP ici=-1, DCN data parallel x2"}
    assert layouts.sharding(row, dp=32, per_node=4, slices=2)[:2] == (3, 16)


@pytest.mark.parametrize(
    "words", ["", "weights over mail"]
)
def test_what_is_not_simulated_is_refused(words: str) -> None:
    """Silence and nonsense are refused, each with its words."""
    with pytest.raises(PlanError, match=r"not simulated|not given|is expected"):
        layouts.sharding({"zero_or_fsdp": words}, dp=8, per_node=8, slices=1)


def test_groups_no_smaller_than_dp_are_all_of_it() -> None:
    """Eight ranks in groups of eight share one copy."""
    assert layouts.sharding({"zero_or_fsdp": "ZeRO-1 in groups of 8"}, dp=8, per_node=8, slices=1)[:2] == (1, None)


@pytest.mark.parametrize(
    ("words", "kind", "simulated", "assumptions"),
    [
        ("none", "none", "none", 0),
        ("full", "full", "full", 0),
        ("selective", "selective", "selective", 0),
        ("selective (every 2nd layer)", "selective", "full:2", 0),
        ("selective (per-op SAC)", "selective", "selective", 1),
        ("maxtext remat_policy=qkv_proj_offloaded", "custom", "full", 1),
    ],
)
def test_recomputation_is_read(words: str, kind: str, simulated: str, assumptions: int) -> None:
    """Policies that are no class of ours are the nearest, and said to be."""
    found, assumed = layouts.recomputation({"recompute": words, "recompute_class": kind})
    assert (found, len(assumed)) == (simulated, assumptions)


@pytest.mark.parametrize(("words", "kind"), [("selective (every n-th block)", "selective"), ("", ""), ("some policy", "custom")])
def test_recomputing_some_layers_or_nobody_knows_what_is_refused(words: str, kind: str) -> None:
    """A share of the layers is no class; silence is no answer."""
    with pytest.raises(PlanError, match="recompu"):
        layouts.recomputation({"recompute": words, "recompute_class": kind})


@pytest.mark.parametrize(
    ("layers", "pp", "microbatches", "vpp"), [(96, 12, 24, 4), (105, 35, 70, 3), (80, 8, 9, 1), (24, 1, 4, 1), (62, 31, 31, 2)]
)
def test_unsaid_chunks_are_the_largest_that_divide_a_stage(layers: int, pp: int, microbatches: int, vpp: int) -> None:
    """Of 1 to 4, where the micro-batches divide by the stages; said to be assumed where there is a pipeline."""
    found, assumed = layouts.pipeline_chunks({"vpp": ""}, pp=pp, layers=layers, microbatches=microbatches)
    assert (found, bool(assumed)) == (vpp, pp > 1)


def test_given_chunks_are_no_assumption() -> None:
    """A source's own figure stands as it is."""
    assert layouts.pipeline_chunks({"vpp": "6"}, pp=8, layers=96, microbatches=64) == (6, ())


def test_a_batch_per_device_becomes_one_per_replica() -> None:
    """Six sequences a chip on four chips a replica are 24; half a sequence on eight is 4."""
    assert layouts.micro_batch({"micro_batch_seqs": "6"}, dp=16, n_accelerators=64, tpu=True) == 24
    assert layouts.micro_batch({"micro_batch_seqs": "0.5"}, dp=8, n_accelerators=64, tpu=True) == 4
    with pytest.raises(PlanError, match="whole number"):
        layouts.micro_batch({"micro_batch_seqs": "0.5"}, dp=64, n_accelerators=64, tpu=True)


def test_a_batch_that_does_not_divide_names_the_nearest() -> None:
    """100 over 16 replicas of 2 is no step; 96 is."""
    with pytest.raises(PlanError, match="nearest is 96"):
        layouts.accumulation(global_batch=100, dp=16, micro=2)


def test_degrees_must_multiply_to_the_accelerators() -> None:
    """A contradiction in the row is named; context-parallel ranks count, expert-parallel ones are some of the others."""
    row = {"n_accelerators": "64", "dp": "2", "tp": "8", "pp": "4", "cp": "1"}
    assert layouts.degrees(row) == layouts.Degrees(dp=2, tp=8, pp=4)
    assert layouts.degrees({**row, "dp": ""}) == layouts.Degrees(dp=2, tp=8, pp=4)
    assert layouts.degrees({**row, "dp": "", "cp": "2", "ep": "2"}) == layouts.Degrees(dp=1, tp=8, pp=4, cp=2, ep=2)
    with pytest.raises(PlanError, match="is 128, but the row has 64"):
        layouts.degrees({**row, "dp": "4"})
    with pytest.raises(PlanError, match="cp=2 is 128, but the row has 64"):
        layouts.degrees({**row, "cp": "2"})


def test_a_framework_joins_the_parts_of_a_sequence_in_its_own_way() -> None:
    """Torchtitan gathers keys and values, Megatron-Core sends them round, and what is not known is assumed and said."""
    assert layouts.context_mode({"framework": "torchtitan (PyTorch FSDP2)"}, 2) == ("all-gather", ())
    assert layouts.context_mode({"framework": "NeMo 24.07 / Megatron-Core"}, 2) == ("ring", ())
    assert layouts.context_mode({"framework": "torchtitan"}, 1) == ("ring", ())
    mode, assumed = layouts.context_mode({"framework": "something else"}, 2)
    assert mode == "ring"
    assert assumed
