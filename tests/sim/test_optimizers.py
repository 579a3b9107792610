"""State, traffic and products of each optimizer, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError, RecipeError
from foretrain.hardware.load import load_cluster
from foretrain.models.load import load_model
from foretrain.sim.optimizer_rules import RULES
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.profile import Software, TrainingState
from tests.sim import hand
from tests.sim.hand import GIGA, TERA

quick = settings(deadline=None, derandomize=True, max_examples=20)
WIDTH = 1000
CELLS = WIDTH**2
EAGER = TrainingState(parameter_bytes=4.0, gradient_bytes=4.0, master_bytes=0.0, gather_bytes=4.0, reduce_bytes=4.0)


def step(optimizer: str = "adamw", *, software: Software | None = None, plan: Plan | None = None, **recipe: Any) -> Prediction:
    """Return a step of one layer of one square product of a million weights, in bf16 unless said otherwise."""
    used = plan or Plan()
    made = Recipe(global_batch=used.dp, optimizer=optimizer, **recipe)
    return simulate(hand.linear_model(layers=1, tokens=8), hand.cluster(), used, made, software=software or hand.software())


def kept(prediction: Prediction) -> float:
    """Return the bytes of optimizer state beside the fp32 master, per weight."""
    return prediction.memory[0].components["optimizer"] / CELLS - 4


STATE = {
    "sgd": 0, "momentum": 4, "nesterov": 4, "adagrad": 4, "adadelta": 8, "adam": 8, "adamw": 8, "adam-8bit": 2 + 8 / 2048, "lamb": 8,
    "lion": 4,
    "adafactor": 4 * 2 * WIDTH / CELLS, "shampoo": 4 + 2 * 2 * 4, "soap": 8 + 2 * 2 * 4, "muon": 4,
}  # fmt: skip
"""Adafactor: 4 bytes for each row and column. Shampoo and SOAP: two squares on each of the two sides, each as large as the weight."""
PRODUCTS = {"shampoo": 2 * 2 * 2 + 2 * 9 / 100, "soap": 2 * 2 * 3 + 2 * (14 / 3) / 10, "muon": 5 * (4 + 2)}
"""FLOPs over width³: products of a side's square with the matrix, and refreshing; five steps of 4m²n + 2m³."""


def test_every_optimizer_is_worked_out() -> None:
    """None is in the table and not here."""
    assert set(STATE) == set(RULES)


@pytest.mark.parametrize("optimizer", STATE)
def test_state_is_what_the_optimizer_keeps(optimizer: str) -> None:
    """Bytes per weight of a square matrix, beside the master; over eight ranks an eighth."""
    assert kept(step(optimizer)) == pytest.approx(STATE[optimizer], rel=1e-12)
    sharded = step(optimizer, plan=Plan(dp=8, zero=1)).memory[0].components["optimizer"]
    assert sharded == pytest.approx(CELLS * (4 + STATE[optimizer]) / 8, rel=1e-12)


@pytest.mark.parametrize("optimizer", [name for name in STATE if name not in PRODUCTS])
def test_a_step_moves_its_bytes(optimizer: str) -> None:
    """Gradient three times (norm, update, clear), master and state read and written, the 16-bit weight written; and what is extra."""
    extra = {"lamb": 12, "adafactor": 8}.get(optimizer, 0)
    moved = 3 * 4 + 2 * (4 + STATE[optimizer]) + 2 + extra
    assert step(optimizer).breakdown["optimizer"] == pytest.approx(CELLS * moved / TERA, rel=1e-9)


@pytest.mark.parametrize("optimizer", PRODUCTS)
def test_matrix_optimizers_run_their_products(optimizer: str) -> None:
    """The hardware's FLOPs of a step beyond AdamW's, refreshing spread over the steps between. MFU does not count them."""
    found, plain = step(optimizer), step()
    assert found.hardware_flop - plain.hardware_flop == pytest.approx(PRODUCTS[optimizer] * WIDTH**3, rel=1e-3)
    assert found.model_flop == plain.model_flop
    assert found.breakdown["optimizer"] > plain.breakdown["optimizer"]


@quick
@given(st.sampled_from((2, 4, 8)))
def test_muon_gathers_what_is_sharded_or_cut(replicas: int) -> None:
    """2 bytes a weight over the ranks that share them; nothing where each has its own."""
    extra = {}
    for zero in (0, 1):
        plan = Plan(dp=replicas, zero=zero)
        muon, adam = step("muon", plan=plan), step(plan=plan)
        extra[zero] = muon.breakdown["data_parallel"] - adam.breakdown["data_parallel"]
    assert extra[0] == pytest.approx(0.0, abs=1e-15)
    assert extra[1] == pytest.approx((replicas - 1) / replicas * 2 * CELLS / (100 * GIGA), rel=1e-9)
    cut = step("muon", plan=Plan(tp=replicas)).breakdown.get("tensor_parallel", 0.0)
    assert cut == pytest.approx((replicas - 1) / replicas * 2 * CELLS / (100 * GIGA), rel=1e-9)


@pytest.mark.parametrize(
    ("recipe", "held"),
    [
        ({}, (2, 4, 12)),
        ({"grad_dtype": "fp32"}, (2, 4, 12)),
        ({"grad_dtype": "bf16"}, (2, 2, 12)),
        ({"master_weights": False}, (2, 4, 8)),
        ({"master_weights": False, "grad_dtype": "bf16"}, (2, 2, 8)),
        ({"precision": "fp32"}, (4, 4, 8)),
    ],
)
def test_masters_and_gradients_are_what_is_asked(recipe: dict[str, Any], held: tuple[int, int, int]) -> None:
    """Bytes per weight of parameters, gradients and optimizer, and half the wire for half the gradient."""
    components = step(**recipe).memory[0].components
    assert (components["parameters"], components["gradients"], components["optimizer"]) == tuple(CELLS * each for each in held)
    wire = step(plan=Plan(dp=8), **recipe).breakdown["data_parallel"]
    assert wire == pytest.approx(2 * 7 / 8 * held[1] * CELLS / (100 * GIGA), rel=1e-12)


def test_autocast_over_fp32_weights_has_its_master_already() -> None:
    """Asked for, nothing changes; without it, weights are 16-bit."""
    software = hand.software(state=EAGER)
    assert step(software=software, master_weights=True).step_s == step(software=software).step_s
    assert step(software=software, master_weights=False).memory[0].components["parameters"] == 2 * CELLS


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"precision": "fp32", "master_weights": False}, "no master weights with precision fp32"),
        ({"precision": "fp32", "grad_dtype": "bf16"}, "grad-dtype bf16 contradicts precision fp32"),
        ({"precision": "bf16", "grad_dtype": "fp16"}, "use fp32 or bf16"),
        ({"grad_dtype": "fp8"}, "grad-dtype 'fp8' is unknown"),
        ({"clip": "local"}, "clip 'local' is unknown"),
        ({"optimizer": "adamv"}, "did you mean 'adam', 'adamw'"),
    ],
)
def test_contradictions_are_refused(recipe: dict[str, Any], words: str) -> None:
    """Naming both options."""
    with pytest.raises(RecipeError, match=words):
        Recipe(global_batch=1, **recipe)


def test_squares_need_full_precision() -> None:
    """A TPU has no fp32 rate for the roots."""
    with pytest.raises(RecipeError, match="no fp32 rate, which soap needs"):
        simulate(load_model("gpt2"), load_cluster("tpu-v4-pod:1"), Plan(), Recipe(global_batch=1, optimizer="soap"))


def test_clipping_exchanges_one_number() -> None:
    """Over shards, tensor ranks and stages, each an all-reduce of 4 bytes whose steps have a latency; without clipping no norm is read."""
    up = hand.fabric(base_latency_s=1e-5)
    cluster = hand.cluster(up=up)
    plan = Plan(dp=2, tp=2, pp=2, zero=1)
    found = {
        clip: simulate(hand.linear_model(layers=2), cluster, plan, Recipe(global_batch=2, clip=clip), software=hand.software())
        for clip in (None, "global", "none")
    }
    assert found["global"].step_s - found[None].step_s == pytest.approx(3e-5, rel=1e-3)
    assert found["none"].step_s < found[None].step_s
    assert step(clip=None).breakdown["optimizer"] - step(clip="none").breakdown["optimizer"] == pytest.approx(4 * CELLS / TERA, rel=1e-9)


def test_a_norm_that_every_rank_knows_is_not_exchanged() -> None:
    """Replicas with whole gradients."""
    with pytest.raises(PlanError, match="every rank has them whole"):
        step(plan=Plan(dp=8), clip="global")


def test_an_unfused_optimizer_moves_more() -> None:
    """For every optimizer that keeps a state; plain SGD is one operation either way."""
    eager = replace(hand.software(), fused=frozenset())
    moved = {name: (step(name, software=eager).breakdown["optimizer"], step(name).breakdown["optimizer"]) for name in RULES}
    assert all(unfused > fused for name, (unfused, fused) in moved.items() if name != "sgd")
    assert moved["sgd"][0] == pytest.approx(moved["sgd"][1], rel=1e-9)
