"""Whole steps of networks that are no transformers."""

from __future__ import annotations

import pytest

from foretrain.hardware.load import load_cluster
from foretrain.models.load import load_model
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software

CLUSTER = "dgx-1v-16gb:1"


def step(name: str, samples: int = 32, precision: str = "fp16", optimizer: str = "momentum", detail: str = "segment") -> Prediction:
    recipe = Recipe(global_batch=8 * samples, precision=precision, optimizer=optimizer)
    plan = Plan(dp=8, micro_batch=samples)
    return simulate(load_model(name), load_cluster(CLUSTER), plan, recipe, software=load_software("pytorch-eager"), detail=detail)


@pytest.mark.parametrize(("optimizer", "state_bytes"), [("sgd", 0), ("momentum", 4), ("adam", 8)])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_autocast_keeps_weights_and_state_in_fp32(precision: str, optimizer: str, state_bytes: int) -> None:
    """PyTorch's mixed precision leaves the fp32 weights where they are, and the optimizer's state beside them."""
    parameters = load_model("resnet-50").parameters
    held = step("resnet-50", precision=precision, optimizer=optimizer).memory[0].components
    assert (held["parameters"], held["gradients"]) == (4 * parameters, 4 * parameters)
    assert held["optimizer"] == state_bytes * parameters


@pytest.mark.parametrize("name", ["resnet-50", "mobilenet-v2", "dlrm", "gnmt"])
def test_every_op_played_is_the_step(name: str) -> None:
    """Segments between communications and single ops agree to 1 %, and the breakdown sums to the step."""
    whole, ops = step(name), step(name, detail="op")
    assert ops.step_s == pytest.approx(whole.step_s, rel=0.01)
    assert sum(whole.breakdown.values()) == pytest.approx(whole.step_s)


@pytest.mark.parametrize("name", ["resnet-50", "vgg-16", "densenet-121"])
def test_half_precision_is_quicker_and_smaller(name: str) -> None:
    """On a device with matrix units; the maps take half."""
    half, full = step(name), step(name, precision="fp32")
    assert half.step_s < full.step_s
    assert half.memory[0].components["activations"] < 0.75 * full.memory[0].components["activations"]


def test_a_residual_network_is_cut_into_stages() -> None:
    """16 blocks on 4 stages; the message is what the next block reads."""
    plan, recipe = Plan(dp=2, pp=4, micro_batch=8), Recipe(global_batch=64, precision="fp16", optimizer="momentum")
    prediction = simulate(load_model("resnet-50"), load_cluster(CLUSTER), plan, recipe, software=load_software("pytorch-eager"))
    assert len(prediction.memory) == 4
    assert prediction.breakdown["bubble"] > 0.0
