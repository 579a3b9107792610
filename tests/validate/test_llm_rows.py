"""From rows to jobs: dimensions, layout, recipe, and the reasons of those that cannot be."""

from __future__ import annotations

import pytest

from foretrain.errors import ProfileError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.validate.answers import answer
from foretrain.validate.cells import Row
from foretrain.validate.llm_rows import Job, Library, Refusal, job_key, job_of, measured
from foretrain.validate.runs_file import read_runs


def one_node(name: str) -> Cluster:
    return load_cluster(f"{name}:1")


LIBRARY = Library(cluster=one_node, software=load_software)
ROWS = {line.cells["id"]: line.cells for line in read_runs(None).lines}


def job(row: Row) -> Job:
    found = job_of(row, LIBRARY)
    assert isinstance(found, Job), found
    return found


def reason(row: Row) -> str:
    found = job_of(row, LIBRARY)
    assert isinstance(found, Refusal)
    return found.reason


def test_gpt3_on_selene_is_read_as_published() -> None:
    """Narayanan et al., table 2: 174.6 B parameters, tp 8, pp 12, with the chunks per stage assumed."""
    found = job(ROWS["megatron-sc21-t2-0007"])
    assert found.model.parameters == pytest.approx(174.6e9, rel=0.005)
    assert (found.plan.tp, found.plan.pp, found.plan.vpp, found.plan.schedule.name) == (8, 12, 4, "interleaved-1f1b")
    assert found.plan.ranks == found.cluster.accelerators
    assert (found.cluster.node.accelerators, found.software.key, found.recipe.precision) == (8, "megatron-lm-2021", "fp16")
    assert any("vpp=4" in note for note in found.assumed)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llm-foundry-0001", None),
        ("bloom-prequel-0130", None),
        ("torchtitan-0001", 8.03e9),
        ("maxtext-0034", None),
        ("internevo-0001", 7.32e9),
    ],
)
def test_models_have_the_parameters_that_their_sources_count(name: str, parameters: float | None) -> None:
    """MPT, BLOOM, Llama, a wide-headed gated model with a tied embedding, InternLM: within 1 %."""
    expected = parameters or float(ROWS[name]["params_B"]) * 1e9
    assert job(ROWS[name]).model.parameters == pytest.approx(expected, rel=0.01)


def test_most_complete_core_configurations_become_jobs() -> None:
    """At least nine in ten; the others are refused by name."""
    core: dict[str, bool] = {}
    for row in ROWS.values():
        if row["complete"] == "y" and row["subset"] == "core":
            core[row["config_key"]] = core.get(row["config_key"], False) or isinstance(job_of(row, LIBRARY), Job)
    assert len(core) == 696
    assert sum(core.values()) >= 0.9 * len(core)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "int8"}, "this format"),
        ({"precision": ""}, "precision is not given"),
        ({"micro_batch_seqs": ""}, "micro-batch is not given"),
        ({"micro_batch_seqs": "1.5"}, "whole number"),
        ({"global_batch_seqs": "7"}, "nearest is"),
        ({"n_layers": "many"}, "n_layers is 'many'"),
        ({"hidden": "-4096"}, "above zero"),
        ({"hidden": "inf"}, "above zero"),
        ({"vocab": ""}, "vocabulary is not given"),
        ({"n_heads": "33"}, "divide"),
        ({"cp": "3"}, "but the row has"),
        ({"arch_family": "moe"}, "n_experts is empty"),
        ({"n_experts": "8"}, "the experts that a token meets"),
        ({"n_experts": "8", "top_k": "9"}, "at most 8"),
        ({"n_experts": "8", "top_k": "2"}, "the source counts"),
        ({"arch_family": "t5"}, "decoder-only"),
        ({"arch_family": "perceptron", "model": "one layer"}, "none that is simulated"),
        ({"model": "Llama2-7B [LoRA]"}, "LoRA"),
        ({"optimizer": "Adam (CPU offload)"}, "what is offloaded"),
        ({"accelerator": "WSE-2"}, "no accelerator of the library"),
        ({"recompute": "selective (every n-th block)"}, "share of the layers"),
    ],
)
def test_a_row_that_cannot_be_simulated_says_why(changes: dict[str, str], words: str) -> None:
    """In one sentence that names the cell or what is not simulated."""
    assert words in reason({**ROWS["internevo-0001"], **changes})


def test_equal_jobs_share_a_key_whatever_was_measured() -> None:
    """Names and measurements do not ask for another simulation; a layout does."""
    row = ROWS["internevo-0001"]
    assert job_key(row) == job_key({**row, "id": "other", "measured_step_time_s": "1"})
    assert job_key(row) != job_key({**row, "tp": "2"})


def test_a_missing_step_time_follows_from_the_token_rate() -> None:
    """16 sequences of 1,000 tokens on 4 accelerators at 2,000 tokens/s each take 2 s; memory is in GB of 10^9."""
    row = {"measured_tokens_per_s_per_accel": "2000", "global_batch_seqs": "16", "seq_len": "1000", "n_accelerators": "4"}
    assert measured(row).step_time_s == pytest.approx(2.0)
    assert measured({**row, "measured_step_time_s": "3", "measured_memory_GB": "40"}).step_time_s == 3.0
    assert measured({"measured_memory_GB": "40"}).memory_bytes == 40e9
    with pytest.raises(ProfileError, match="measured_step_time_s"):
        measured({"measured_step_time_s": "fast"})


MIXTURE = {
    "model": "Mixtral-8x7B", "arch_family": "moe", "n_layers": "32", "hidden": "4096", "ffn_hidden": "14336", "n_heads": "32",
    "n_kv_heads": "8", "vocab": "32000", "params_B": "46.7", "n_experts": "8", "top_k": "2",
}  # fmt: skip


def test_a_row_of_a_mixture_is_the_mixture() -> None:
    """Experts of the columns' width in every layer have the parameters that the source counts, all and active ones."""
    found = job_of({**ROWS["internevo-0001"], **MIXTURE, "ep": "8", "cp": ""}, LIBRARY)
    assert isinstance(found, Job)
    assert found.model.parameters == pytest.approx(46.7e9, rel=0.002)
    assert found.model.active_parameters == pytest.approx(12.9e9, rel=0.005)
    assert found.plan.ep == 8


def test_a_row_of_context_parallelism_shards_over_both() -> None:
    """Torchtitan's shard counts context ranks; nothing but its precision keeps the row from being a job."""
    found = job_of({**ROWS["torchtitan-0009"], "precision": "bf16"}, LIBRARY)
    assert isinstance(found, Job)
    assert (found.plan.dp, found.plan.cp, found.plan.cp_mode, found.plan.shards) == (2, 4, "all-gather", 8)


def test_memory_is_held_against_the_meter_of_its_source() -> None:
    """Torchtitan logs what the allocator reserved, which leaves out the context; the others' figures are the device's."""
    for name, reserved in (("torchtitan-0001", True), ("bloom-prequel-0130", False)):
        found = job(ROWS[name])
        prediction = simulate(found.model, found.cluster, found.plan, found.recipe, software=found.software)
        outside = found.software.context_bytes if reserved else 0.0
        assert answer(ROWS[name]).memory_bytes == pytest.approx(max(prediction.peak_memory_bytes) - outside)


SAMPLED = ("torchtitan-0001", "torchtitan-0005", "torchtitan-0007", "torchtitan-0011", "torchtitan-0031", "bloom-prequel-0001",
           "bloom-prequel-0007", "bloom-prequel-0014", "bloom-prequel-0077", "bloom-prequel-0114", "bloom-prequel-0126")  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
def test_published_memory_is_met(name: str) -> None:
    """Eager and compiled, 8 to 384 accelerators, fp16 and bf16, with and without pipelines: within 12 %."""
    found, said = measured(ROWS[name]).memory_bytes, answer(ROWS[name]).memory_bytes
    assert said == pytest.approx(found, rel=0.12)
