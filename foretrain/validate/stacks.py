"""Which software profile a published framework string means, and what its `execution` changes in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from foretrain.errors import ProfileError
from foretrain.software.profile import Software
from foretrain.validate.cells import Row, text

FIRST_FUSED_MEGATRON = "2022-06"
"""Megatron-LM before sequence parallelism and flash attention (arXiv:2205.05198, arXiv:2205.14135) is another profile."""


FIRST_COMPILED_LOSS = "2025"
"""torchtitan compiles its loss since early in 2025; before, only the blocks."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A framework by the words that name it: profile as it runs by default, and compiled where it has such a profile."""

    pattern: str
    profile: str
    compiled: str | None = None
    note: str = ""


STACKS = (
    Stack(r"Neuron|Habana|Gaudi", ""),
    Stack(r"MaxText|Paxml|\bPax\b|T5X|\bJAX\b|\bXLA\b|EasyLM|Levanter|AXLearn|Saxml|Praxis", "xla"),
    Stack(r"torchtitan", "torchtitan", "torchtitan-compiled"),
    Stack(r"LLM[- ]?Foundry|Composer|MosaicML", "composer-fsdp"),
    Stack(r"InternEvo|InternLM", "internevo"),
    Stack(r"Flash-?Attention repo|flash-attn repo", "flash-attn-repo"),
    Stack(r"NeMo\b", "nemo"),
    Stack(r"GPT-?NeoX|Megatron-DeepSpeed|DeepSpeed-Megatron|Megatron.*DeepSpeed 3D", "megatron-deepspeed"),
    Stack(r"DeepSpeed ZeRO|ZeRO-3|ZeRO-Infinity|\bDeepSpeed\b", "deepspeed-zero3"),
    Stack(r"Megatron-Core|\bMCore\b|Megatron Bridge|Megatron-LLM", "megatron-lm"),
    Stack(r"Megatron", "megatron-lm"),
    Stack(r"MegaScale", "megatron-lm", note="MegaScale taken as Megatron-LM"),
    Stack(r"Colossal-?AI|OneFlow|LiBai|Nanotron|Alpa", "megatron-lm", note="taken as Megatron-LM"),
    Stack(r"FSDP|Lit-?GPT|LitGPT|Lightning|Accelerate|fairscale|metaseq|OLMo|fms", "pytorch-fsdp", "pytorch-fsdp-compiled"),
    Stack(r"PyTorch|\btorch\b|HF Transformers|Hugging ?Face|nanoGPT|minGPT", "pytorch-eager"),
)
"""In order of priority: the first whose words occur decides."""


def software_of(row: Row, *, tpu: bool, model_parallel: bool, load: Callable[[str], Software]) -> tuple[Software, tuple[str, ...]]:
    """Return the software profile of a row, changed by what its execution and precision say, and what had to be assumed.

    Raises:
        ProfileError: where the execution is not simulated.
    """
    name, notes = _profile(row, tpu=tpu, model_parallel=model_parallel)
    software, said = _executed(load(name), text(row, "execution"))
    return _reduced(_bucketed(software, text(row, "zero_or_fsdp")), text(row, "precision")), (*notes, *said)


def profile_name(row: Row, *, tpu: bool, model_parallel: bool) -> str:
    """Return the library name of the software profile of a row."""
    return _profile(row, tpu=tpu, model_parallel=model_parallel)[0]


def _profile(row: Row, *, tpu: bool, model_parallel: bool) -> tuple[str, tuple[str, ...]]:
    framework, execution = text(row, "framework"), text(row, "execution")
    stack = next((stack for stack in STACKS if re.search(stack.pattern, framework, re.IGNORECASE)), None)
    if stack is None:
        guess = "xla" if tpu else "megatron-lm" if model_parallel else "pytorch-fsdp" if _sharded(row) else "pytorch-eager"
        return guess, (f"framework {framework!r} taken as {guess}",)
    if not stack.profile:
        raise ProfileError(f"framework {framework!r} is not in this release's library")
    return _variant(stack, row, tpu=tpu), ((f"framework {framework!r}: {stack.note}",) if stack.note else ()) + _eager(stack, execution)


def _eager(stack: Stack, execution: str) -> tuple[str, ...]:
    wants = "compiled" in execution
    return (f"torch.compile taken as {stack.profile}",) if wants and stack.compiled is None and stack.profile != "xla" else ()


def _variant(stack: Stack, row: Row, *, tpu: bool) -> str:
    """Return the profile of a stack on this row: compiled, blocking, old or on a GPU."""
    execution, framework = text(row, "execution"), text(row, "framework")
    if stack.profile == "xla":
        return "xla" if tpu else "xla-gpu"
    if stack.profile == "megatron-lm" and "" < text(row, "date") < FIRST_FUSED_MEGATRON:
        return "megatron-lm-2021"
    if stack.profile == "megatron-deepspeed" and "launch_blocking" in execution:
        return "megatron-deepspeed-blocking"
    if stack.profile == "deepspeed-zero3" and not _sharded(row):
        return "megatron-deepspeed"
    if stack.compiled and ("compiled" in execution or re.search("compile", framework, re.IGNORECASE)):
        return _compiled(stack.compiled, row)
    return stack.profile if stack.profile != "pytorch-eager" or not _sharded(row) else "pytorch-fsdp"


def _compiled(profile: str, row: Row) -> str:
    return "torchtitan-compiled-loss" if profile == "torchtitan-compiled" and text(row, "date") >= FIRST_COMPILED_LOSS else profile


def _sharded(row: Row) -> bool:
    return bool(re.search(r"FSDP|ZeRO-?3|FULL_SHARD", text(row, "zero_or_fsdp"), re.IGNORECASE))


def _executed(software: Software, execution: str) -> tuple[Software, tuple[str, ...]]:
    """Return the profile as changed by the words of the `execution` column."""
    notes: tuple[str, ...] = ()
    if "async_tp" in execution:
        software = replace(software, overlap=replace(software.overlap, tensor_pipelined=True))
    if "cuda_graph" in execution:
        software = replace(software, host=replace(software.host, launch_s=0.0, blocking=False))
        notes += ("CUDA graphs: launches cost the host nothing",)
    if "no_overlap" in execution:
        hidden = replace(software.overlap, gradient_reduce=False, parameter_gather=False, pipeline=False, tensor_backward=False)
        software = replace(software, overlap=hidden)
    if "launch_blocking" in execution and not software.host.blocking:
        software = replace(software, host=replace(software.host, blocking=True))
    if "before_numa_fix" in execution:
        notes += ("the 1-5 % that a wrong NUMA binding cost is not simulated",)
    return software, notes


def _bucketed(software: Software, sharding: str) -> Software:
    """Return the profile with the overlap of gradient reduction that the layout column spells out, where it does."""
    if re.search(r"no gradient bucket|no overlap", sharding, re.IGNORECASE):
        return replace(software, overlap=replace(software.overlap, gradient_reduce=False))
    if re.search(r"overlap grad-reduce/param-gather", sharding, re.IGNORECASE):
        return replace(software, overlap=replace(software.overlap, gradient_reduce=True, parameter_gather=True))
    return software


def _reduced(software: Software, precision: str) -> Software:
    """Return the profile with the bytes per element on the wire that Composer's mode sets, and the gather in fp8 that a row spells out.

    Source: MosaicML Composer 0.19.1, `composer/trainer/mosaic_fsdp_utils.py`, `get_mixed_precision`: PURE gathers and reduces in
    the low precision, DEFAULT reduces in fp32, FULL does both in fp32.
    """
    if re.search(r"fp8 all-?gather", precision):
        software = replace(software, fp8_gather=True)
    mode = re.search(r"mixed_precision=(PURE|DEFAULT|FULL)", precision)
    if mode is None:
        return software
    gather, reduce = {"PURE": (2.0, 2.0), "DEFAULT": (2.0, 4.0), "FULL": (4.0, 4.0)}[mode.group(1)]
    return replace(software, state=replace(software.state, gather_bytes=gather, reduce_bytes=reduce))
