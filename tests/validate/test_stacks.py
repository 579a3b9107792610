"""Which software profile a framework string means."""

from __future__ import annotations

import pytest

from foretrain.errors import ProfileError
from foretrain.software.load import list_software, load_software
from foretrain.validate.stacks import STACKS, profile_name, software_of


@pytest.mark.parametrize(
    ("framework", "execution", "date", "sharding", "profile"),
    [
        ("Megatron-LM", "", "2021-04", "none", "megatron-lm-2021"),
        ("Megatron-LM PTD-P", "", "2021-04", "none", "megatron-lm-2021"),
        ("Megatron-LM", "", "2022-06", "none", "megatron-lm"),
        ("Megatron-Core", "", "2024-05", "ZeRO-1", "megatron-lm"),
        ("NeMo 24.07 / Megatron-Core", "", "2024-08", "ZeRO-1", "nemo"),
        ("Megatron-DeepSpeed", "", "2024-11", "none", "megatron-deepspeed"),
        (
            "Megatron-DeepSpeed (BigScience)",
            "launch_blocking before_numa_fix",
            "2022-02",
            "DeepSpeed ZeRO-1",
            "megatron-deepspeed-blocking",
        ),
        ("GPT-NeoX (Megatron-DeepSpeed)", "", "2022-04", "ZeRO-1", "megatron-deepspeed"),
        ("Megatron-LM v1.1.5 + DeepSpeed ZeRO-3", "", "2021-05", "ZeRO-3", "deepspeed-zero3"),
        ("HF Transformers + DeepSpeed ZeRO-3", "", "2021-05", "ZeRO-3", "deepspeed-zero3"),
        ("PyTorch FSDP1", "eager", "2024-03", "FSDP full shard", "pytorch-fsdp"),
        ("PyTorch FSDP1 + torch.compile", "compiled", "2024-08", "FSDP full shard", "pytorch-fsdp-compiled"),
        ("torchtitan (PyTorch FSDP2)", "eager", "2024-12", "FSDP2 (ZeRO-3) shard=8", "torchtitan"),
        ("torchtitan (PyTorch FSDP2)", "compiled", "2024-12", "FSDP2 (ZeRO-3) shard=8", "torchtitan-compiled"),
        ("torchtitan (PyTorch FSDP2)", "compiled", "2025-06", "FSDP2 (ZeRO-3) shard=8", "torchtitan-compiled-loss"),
        ("Composer + PyTorch FSDP", "", "2024-02", "FSDP FULL_SHARD", "composer-fsdp"),
        ("LLM Foundry / Composer", "", "2023-06", "FSDP", "composer-fsdp"),
        ("InternEvo", "", "2024-01", "ZeRO-1", "internevo"),
        ("FlashAttention repo (PyTorch Lightning, fused kernels)", "", "2023-07", "DDP", "flash-attn-repo"),
        ("LitGPT fork + FlashAttention2 fused ops", "", "2023-09", "FSDP/hybrid", "pytorch-fsdp"),
        ("MaxText (JAX/XLA GPU)", "", "2024-04", "FSDP ici=8", "xla-gpu"),
        ("Paxml (JAX)", "", "2023-10", "DP", "xla-gpu"),
        ("nanoGPT", "", "2023-01", "DDP", "pytorch-eager"),
    ],
)
def test_a_framework_is_found_by_its_words(framework: str, execution: str, date: str, sharding: str, profile: str) -> None:
    """Name, date, execution and layout choose; nothing about the row's source or model does."""
    row = {"framework": framework, "execution": execution, "date": date, "zero_or_fsdp": sharding}
    assert profile_name(row, tpu=False, model_parallel=False) == profile


def test_jax_runs_on_both_kinds_of_chip() -> None:
    """The same words, another profile."""
    assert profile_name({"framework": "MaxText"}, tpu=True, model_parallel=False) == "xla"


@pytest.mark.parametrize(
    ("sharding", "model_parallel", "profile"),
    [("none", True, "megatron-lm"), ("FSDP", False, "pytorch-fsdp"), ("DDP", False, "pytorch-eager")],
)
def test_an_unknown_framework_is_taken_for_one_of_its_layout_and_said_to_be(sharding: str, model_parallel: bool, profile: str) -> None:  # noqa: FBT001  # a parameter of the case
    """A guess, under the name of a guess."""
    software, assumed = software_of(
        {"framework": "in-house", "zero_or_fsdp": sharding}, tpu=False, model_parallel=model_parallel, load=load_software
    )
    assert software.key == profile
    assert any("in-house" in note for note in assumed)


def test_every_profile_of_the_table_is_in_the_library() -> None:
    """Default and compiled."""
    wanted = {name for stack in STACKS for name in (stack.profile, stack.compiled) if name}
    wanted |= {"xla-gpu", "megatron-lm-2021", "megatron-deepspeed-blocking"}
    assert wanted <= set(list_software())


def test_execution_and_precision_change_the_profile() -> None:
    """No overlap hides nothing; PURE mixed precision reduces two bytes an element, DEFAULT four."""
    row = {"framework": "Composer", "execution": "no_overlap", "precision": "bf16 / FSDP mixed_precision=PURE"}
    software, _ = software_of(row, tpu=False, model_parallel=False, load=load_software)
    assert (software.overlap.gradient_reduce, software.overlap.parameter_gather) == (False, False)
    assert software.state.reduce_bytes == 2.0
    default = {**row, "precision": "amp_bf16 / FSDP mixed_precision=DEFAULT"}
    assert software_of(default, tpu=False, model_parallel=False, load=load_software)[0].state.reduce_bytes == 4.0


def test_asynchronous_tensor_parallelism_cuts_collectives_into_chunks() -> None:
    """They run beside the products that they feed or drain, which the profile alone does not do."""
    row = {"framework": "torchtitan", "execution": "compiled"}
    plain, chunks = (
        software_of({**row, "execution": words}, tpu=False, model_parallel=True, load=load_software)[0]
        for words in ("compiled", "compiled async_tp")
    )
    assert (plain.overlap.tensor_pipelined, chunks.overlap.tensor_pipelined) == (False, True)


def test_what_is_not_simulated_is_refused() -> None:
    """A chip's own framework."""
    with pytest.raises(ProfileError, match="not in this release's library"):
        profile_name({"framework": "LLM Foundry (Optimum Habana)"}, tpu=False, model_parallel=False)
