"""The roofline: no kernel above it, roofs from the data sheet, and the kernels are those of the model."""

from __future__ import annotations

import pytest

from foretrain.errors import RecipeError
from foretrain.hardware.load import load_accelerator
from foretrain.models.load import load_model
from foretrain.sim.roofline import roofline_points, roofs
from foretrain.software.load import load_software
from tests.sim.hand import accelerator, linear_model, software


def test_a_hand_made_product_lies_on_the_roof() -> None:
    """2·1000³ FLOPs in 2 ms at 1 TFLOP/s; three matrices of 2 bytes an element are 333 FLOP/B."""
    points = roofline_points(linear_model(layers=3), accelerator(), software())
    assert {point.count for point in points} == {3}
    for point in points:
        assert point.flop_per_s == pytest.approx(1e12)
        assert point.intensity == pytest.approx(1000 / 3)


@pytest.mark.parametrize(("chip", "precision"), [("h100-sxm", "bf16"), ("v100-sxm2-16gb", "fp16"), ("tpu-v4", "bf16"), ("k80", "fp32")])
def test_no_kernel_is_above_the_roof(chip: str, precision: str) -> None:
    """At every intensity, at most the data sheet's peak and bandwidth."""
    one = load_accelerator(chip)
    points = roofline_points(load_model("gpt2"), one, load_software("megatron-lm"), precision=precision, micro_batch=2)
    for point in points:
        roof = min(one.peak_flop_per_s[precision], point.intensity * one.memory_bytes_per_s)
        assert point.flop_per_s <= roof * 1.06, point.name


def test_the_points_are_the_whole_model() -> None:
    """Products and attention of all points add up to the model's FLOPs or, with attention run again, a little more."""
    model = load_model("gpt2")
    points = roofline_points(model, load_accelerator("a100-sxm-80gb"), load_software("megatron-lm"), micro_batch=2)
    total = sum(point.count * point.flop for point in points)
    assert 0.9 < total / (2 * model.flop_per_sample()) < 1.1


def test_roofs_are_the_data_sheet_and_the_ridge_is_their_ratio() -> None:
    """A100: 312 TFLOP/s over 2.039 TB/s is 153 FLOP/B."""
    found = {roof.precision: roof for roof in roofs(load_accelerator("a100-sxm-80gb"))}
    assert list(found)[-1] == "fp32"
    assert found["bf16"].peak_flop_per_s == 312e12
    assert found["bf16"].ridge_flop_per_byte == pytest.approx(153, rel=0.001)
    assert found["bf16"].sustained_flop_per_s < 312e12


def test_a_precision_that_the_chip_lacks_is_refused_with_those_it_has() -> None:
    """K80 has no bf16."""
    with pytest.raises(RecipeError, match="has no bf16 rate; use one of fp32"):
        roofline_points(load_model("gpt2"), load_accelerator("k80"), load_software("megatron-lm"))
