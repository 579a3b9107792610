"""Software profiles: the library and a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretrain.errors import ProfileError, UnknownNameError
from foretrain.inherit import KINDS
from foretrain.software.load import json_schema, list_software, load_software, provenance

NAMES = (
    "megatron-lm-2021 megatron-lm nemo megatron-deepspeed megatron-deepspeed-blocking deepspeed-zero3 pytorch-fsdp pytorch-fsdp-compiled "
    "torchtitan torchtitan-compiled composer-fsdp internevo flash-attn-repo pytorch-eager xla xla-gpu"
)


def test_the_library_holds_the_frameworks() -> None:
    """Those whose published runs the predictions are held against."""
    assert set(NAMES.split()) <= set(list_software())


@pytest.mark.parametrize("name", list_software())
def test_every_profile_loads_with_its_sources(name: str) -> None:
    """Key, default attention kernel, and a source for each figure."""
    software = load_software(name)
    assert software.key == name
    assert "default" in software.attention
    assert software.state.gather_bytes > 0
    assert all(figure.title and figure.kind in KINDS for figure in provenance(name))


@pytest.mark.parametrize("name", list_software())
def test_some_copy_of_the_parameters_stays(name: str) -> None:
    """Parameters live in the resident copy or in the master copy; Adam's moments are the optimizer's."""
    state = load_software(name).state
    assert state.parameter_bytes + state.master_bytes >= 4


def test_blocking_launches_differ_in_nothing_else() -> None:
    """CUDA_LAUNCH_BLOCKING=1 over the same framework."""
    free, blocking = load_software("megatron-deepspeed"), load_software("megatron-deepspeed-blocking")
    assert blocking.host.blocking
    assert not free.host.blocking
    assert (free.fused, free.state, free.overlap) == (blocking.fused, blocking.state, blocking.overlap)


def test_compilation_never_launches_slower_or_fuses_less() -> None:
    """Compiled profiles against their eager parents."""
    for name in ("pytorch-fsdp", "torchtitan"):
        eager, compiled = load_software(name), load_software(f"{name}-compiled")
        assert compiled.host.launch_s <= eager.host.launch_s
        assert compiled.fused > eager.fused - {"cross_entropy"}


def test_a_users_profile_inherits_and_is_checked(tmp_path: Path) -> None:
    """Override one switch; a wrong pattern or kernel is answered with the nearest."""
    path = tmp_path / "mine.yaml"
    path.write_text("base: megatron-lm\noverlap: {pipeline: false}\n")
    assert not load_software(path).overlap.pipeline
    assert load_software(path).overlap.gradient_reduce
    path.write_text("base: megatron-lm\nfused: [swiglo]\nattention: {h100: flash4}\nhost: {blocking: maybe}\n")
    with pytest.raises(ProfileError) as caught:
        load_software(path)
    faults = "\n".join(caught.value.faults)
    assert "did you mean 'swiglu'" in faults
    assert "'flash4' is unknown" in faults
    assert f"{path}:4: host.blocking: 'maybe' is wrong" in faults


def test_unknown_software_offers_the_nearest() -> None:
    """By the shortest of typing slips."""
    with pytest.raises(UnknownNameError, match="did you mean 'megatron-lm'"):
        load_software("megatron-ml")


def test_the_json_schema_is_that_of_a_software_profile() -> None:
    """Units in the descriptions, base allowed."""
    schema = json_schema("software")
    assert {"base", "attention", "fused", "host"} <= set(schema["properties"])
