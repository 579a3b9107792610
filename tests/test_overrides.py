"""`--set path.to.field=value` on frozen profiles."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import UsageError
from foretrain.hardware.load import load_cluster
from foretrain.overrides import apply_overrides, override
from foretrain.software.load import load_software


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("node.accelerator.power.limit_w", "500 W", 500.0),
        ("node.accelerator.power.limit_w", "500", 500.0),
        ("node.accelerator.peak_flop_per_s.bf16", "1 PFLOP/s", 1e15),
        ("node.accelerator.power.math_j_per_flop.bf16", "0.4 pJ/FLOP", 0.4e-12),
        ("node.accelerator.matmul.sustained.bf16", "70 %", 0.7),
        ("node.accelerator.attention.flash2.forward", "0.5", 0.5),
        ("node.accelerator.matmul.tile_efficiency", "1, 0.9, 0.8, 0.7", (1.0, 0.9, 0.8, 0.7)),
        ("scale_out.bandwidth_bytes_per_s", "800 Gbit/s", 1e11),
        ("facility.usd_per_kwh", "0.2 USD/kWh", 0.2),
        ("nodes", "7", 7),
        ("name", "mine", "mine"),
    ],
)
def test_a_field_is_set_by_its_type_and_unit(path: str, text: str, value: object) -> None:
    """Numbers with and without unit, mappings, counts, tuples and text."""
    at: object = override(load_cluster("dgx-h100:4"), path, text)
    for key in path.split("."):
        at = at[key] if isinstance(at, dict) else getattr(at, key)
    assert at == (pytest.approx(value) if isinstance(value, float) else value)


def test_the_profile_itself_is_left_alone() -> None:
    """The library's cached objects are shared, so an override makes a new one and changes nothing else."""
    cluster = load_cluster("dgx-h100:4")
    changed = override(cluster, "node.accelerator.power.limit_w", "500 W")
    assert cluster.accelerator.power.limit_w == 700
    assert dataclasses.replace(changed, node=cluster.node) == cluster


def test_switches_words_and_sets_of_a_software_profile() -> None:
    """Booleans, attention kernels, fused patterns."""
    software = apply_overrides(
        load_software("megatron-lm"),
        {"overlap.pipeline": "off", "attention.default": "unfused", "fused": "norm, softmax", "host.launch_s": "3 us"},
    )
    assert not software.overlap.pipeline
    assert software.attention["default"] == "unfused"
    assert software.fused == {"norm", "softmax"}
    assert software.host.launch_s == pytest.approx(3e-6)


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("node.accelerator.power.limit", "5 W", "did you mean 'limit_w'"),
        ("nod.accelerator", "5", "did you mean 'node'"),
        ("node.accelerator.power.limit_w", "80 GB", "is in B, but this field is in W"),
        ("node.accelerator.power.limit_w", "-5 W", "negative"),
        ("node.accelerator.power.limit_w", "0", "out of range"),
        ("node.accelerator.power.limit_w", "", "no number"),
        ("node.accelerator.power", "5", "is a group of fields"),
        ("node.accelerator.peak_flop_per_s", "5", "is a group of fields"),
        ("node.accelerator.peak_flop_per_s.bf61", "5", "did you mean 'bf16'"),
        ("node.accelerator.matmul.tiles", "5", "cannot be set from the command line"),
        ("nodes.count", "5", "nodes is a value"),
        ("nodes", "2.5", "no whole number"),
        ("scale_out.efficiency", "7", "out of range"),
        ("", "7", "has no field ''"),
        ("..", "7", "has no field ''"),
    ],
)
def test_a_wrong_override_is_refused_with_the_remedy(path: str, text: str, reason: str) -> None:
    """Unknown fields with the nearest, wrong units, groups, sizes that no machine has."""
    with pytest.raises(UsageError, match=r"^--set") as caught:
        override(load_cluster("dgx-h100:4"), path, text)
    assert reason in str(caught.value)


@settings(deadline=None, derandomize=True)
@given(watts=st.floats(1.0, 1e6))
def test_any_number_of_watts_arrives(watts: float) -> None:
    """As written with repr, to the last bit."""
    assert override(load_cluster("dgx-h100:4"), "node.host_w", f"{watts!r} W").node.host_w == watts
