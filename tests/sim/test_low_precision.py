"""Training in 8 and 4 bits: seconds, bytes and wire worked out by hand from the recipes of scaling."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import RecipeError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.models.load import load_model
from foretrain.sim.low_precision import SCALINGS
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.software.profile import Software, TrainingState
from tests.sim import hand
from tests.sim.cases import gpt
from tests.sim.hand import GIGA, TERA

quick = settings(deadline=None, derandomize=True, max_examples=25)
WIDTH, TOKENS = 1024, 4096
RATES = {"bf16": TERA, "fp8": 2 * TERA, "mxfp8": 2 * TERA, "nvfp4": 4 * TERA}
RESTING = TrainingState(parameter_bytes=0.0, gradient_bytes=4.0, master_bytes=4.0, gather_bytes=2.0, reduce_bytes=4.0)


def machine() -> Cluster:
    """Return devices whose rate doubles with every halving of the bits."""
    return hand.cluster(device=hand.accelerator(peak_flop_per_s=RATES))


def step(precision: str, *, batch: int = 1, software: Software | None = None, layers: int = 1, **plan: Any) -> Prediction:
    """Return a step of layers of one product of 1024 × 1024 over 4096 tokens each."""
    model = hand.linear_model(layers=layers, tokens=TOKENS, width=WIDTH)
    recipe = Recipe(global_batch=batch, precision=precision)
    return simulate(model, machine(), Plan(**plan), recipe, software=software or hand.software())


# Bytes moved per element in each pass: forward of an input and a weight, backward of a gradient, again of a weight and an input; and
# once a step of a weight. Worked out from: read 2, write 1 and the share of the scales; twice where a transpose is written with it;
# read 2 more where the largest magnitude of a tensor or column is looked up first.
CASTS = {
    "fp8-delayed": (4, 0, 4, 0, 0, 4),
    "fp8-tensorwise": (5, 5, 10, 5, 5, 0),
    "fp8-rowwise": (3, 3, 8, 5, 5, 0),
    "fp8-block": (4 + 2 / 32, 0, 4 + 2 / 32, 0, 0, 4 + 2 / 32),
    "mxfp8": (4 + 2 / 32, 0, 4 + 2 / 32, 0, 0, 4 + 2 / 32),
    "nvfp4": (2 + 9 / 8, 0, 2 + 9 / 8, 0, 0, 2 + 9 / 8),
}


@pytest.mark.parametrize("precision", CASTS)
def test_products_take_their_rate_and_casts_their_bytes(precision: str) -> None:
    """Three products at the rate of few bits; casts, and the optimizer with the weights that are kept, at 1 TB/s."""
    prediction = step(precision)
    inputs, weights, gradients, weights_again, inputs_again, once = CASTS[precision]
    rows, cells = TOKENS * WIDTH, WIDTH * WIDTH
    moved = rows * (inputs + gradients + inputs_again) + cells * (weights + weights_again)
    dtype = precision.partition("-")[0]
    assert prediction.breakdown["math"] == pytest.approx(3 * 2 * TOKENS * WIDTH**2 / RATES[dtype], rel=1e-12)
    assert prediction.breakdown["memory"] == pytest.approx(moved / TERA, rel=1e-12)
    plain = step("bf16").breakdown["optimizer"]
    assert prediction.breakdown["optimizer"] - plain == pytest.approx(cells * once / TERA, rel=1e-9, abs=1e-15)


def test_weights_kept_in_few_bits_are_cast_once_however_many_micro_batches() -> None:
    """Under delayed scaling; two copies of a byte stay beside the 16-bit weight. Under dynamic scaling every micro-batch casts."""
    one, four = step("fp8-delayed"), step("fp8-delayed", batch=4)
    assert four.step_s - one.step_s == pytest.approx(3 * (one.step_s - one.breakdown["optimizer"]), rel=1e-9)
    assert one.memory[0].components["parameters"] == (2 + 2) * WIDTH**2
    assert step("fp8-tensorwise").memory[0].components["parameters"] == 2 * WIDTH**2


def test_the_input_is_kept_in_few_bits_where_its_transpose_is() -> None:
    """One byte instead of two an element under delayed scaling; torchao keeps the 16-bit input."""
    kept = {name: step(name).memory[0].components["activations"] for name in ("bf16", "fp8-delayed", "fp8-tensorwise")}
    assert kept == {"bf16": 2 * TOKENS * WIDTH, "fp8-delayed": TOKENS * WIDTH, "fp8-tensorwise": 2 * TOKENS * WIDTH}


@quick
@given(st.integers(1, 4), st.sampled_from((2, 4, 8)))
def test_the_gather_in_fp8_halves_its_wire(layers: int, replicas: int) -> None:
    """Two gathers of a byte instead of two a parameter, and the reduction of four."""
    found = {}
    for gather in (False, True):
        software = hand.software(state=RESTING, fp8_scaling="tensorwise", fp8_gather=gather)
        found[gather] = step("fp8", batch=replicas, layers=layers, software=software, dp=replicas, zero=3)
    wire = (replicas - 1) / replicas * layers * WIDTH**2 / (100 * GIGA)
    assert found[False].breakdown["data_parallel"] == pytest.approx(wire * 8, rel=1e-12)
    assert found[True].breakdown["data_parallel"] == pytest.approx(wire * 6, rel=1e-12)


def test_attention_norms_and_the_head_stay_in_16_bits() -> None:
    """At a rate without bound for fp8, the products of the head and the fused attention take the time that they take in bf16."""
    model = gpt(layers=2, hidden=64, heads=4, vocab=1000, seq_len=32)
    device = hand.accelerator(peak_flop_per_s={"bf16": TERA, "fp8": 1e30}, memory_bytes_per_s=1e30)
    cluster = hand.cluster(device=device)
    fast = simulate(model, cluster, Plan(), Recipe(global_batch=1, precision="fp8"), software=hand.software())
    head = 3 * 2 * 32 * 64 * 1000
    attention = 2 * 3.5 * 2 * 2 * 32 * 32 / 2 * 64
    assert fast.breakdown["math"] == pytest.approx((head + attention) / TERA, rel=1e-9)


def test_experts_stay_in_16_bits_and_the_prediction_says_so() -> None:
    """Among what is assumed."""
    plan, recipe = Plan(dp=8, zero=3), Recipe(global_batch=8, precision="fp8")
    said = simulate(load_model("mixtral-8x7b"), load_cluster("dgx-h100:1"), plan, recipe, software=load_software("torchtitan-compiled"))
    assert "model: products of experts stay in 16 bits" in said.assumed


def test_a_framework_says_what_fp8_means() -> None:
    """Its own recipe, unless one is named."""
    ours = hand.software(fp8_scaling="block")
    assert step("fp8", software=ours).step_s == step("fp8-block").step_s != step("fp8").step_s
    assert step("fp8").step_s == step("fp8-delayed").step_s
    assert load_software("torchtitan-compiled").fp8_scaling == "tensorwise"


@pytest.mark.parametrize("precision", sorted(SCALINGS))
def test_a_machine_without_the_rate_refuses(precision: str) -> None:
    """And names what it has; a model without products in its layers is refused too."""
    name = precision if precision in ("mxfp8", "nvfp4") else f"fp8-{precision}"
    with pytest.raises(RecipeError, match=r"has no \w+ rate, which precision .* needs; use one of bf16"):
        simulate(load_model("gpt2"), load_cluster("dgx-a100-80gb:1"), Plan(), Recipe(global_batch=1, precision=name))
    with pytest.raises(RecipeError, match="no layer of"):
        simulate(load_model("resnet-50"), load_cluster("dgx-b200:1"), Plan(), Recipe(global_batch=8, precision=name))


@pytest.mark.parametrize("software", ["megatron-lm", "torchtitan-compiled"])
def test_fewer_bits_are_faster_for_wide_layers(software: str) -> None:
    """A step of a Llama of 8 B in fp8 on Hopper, and in fp4 on Blackwell."""
    plan, loaded = Plan(dp=8, zero=1 if software == "megatron-lm" else 3), load_software(software)
    for cluster, names in (("dgx-h100:1", ("bf16", "fp8")), ("dgx-b200:1", ("bf16", "mxfp8", "nvfp4"))):
        steps = [
            simulate(load_model("llama3-8b"), load_cluster(cluster), plan, Recipe(global_batch=8, precision=name), software=loaded).step_s
            for name in names
        ]
        assert steps == sorted(steps, reverse=True)
