"""Recomputation of some layers and of classes of ops: bytes and FLOPs worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.recompute_share import recompute_share
from foretrain.sim.simulate import simulate
from tests.sim import hand
from tests.sim.cases import gpt

quick = settings(deadline=None, derandomize=True, max_examples=25)
LAYERS, HIDDEN, SEQ = 8, 64, 32
MODEL = gpt(layers=LAYERS, hidden=HIDDEN, heads=4, vocab=1000, seq_len=SEQ)
LAYER_FLOP = 2 * SEQ * 12 * HIDDEN**2


def step(**plan: Any) -> Prediction:
    """Return one micro-batch of a small GPT in bf16."""
    return simulate(MODEL, hand.cluster(), Plan(**plan), Recipe(global_batch=plan.get("dp", 1)), software=hand.software())


def kept(prediction: Prediction) -> float:
    """Return the bytes of activations at the peak."""
    return prediction.memory[0].components["activations"]


@pytest.mark.parametrize(("words", "layers"), [("full:1", range(8)), ("full:2", (1, 3, 5, 7)), ("full:3", (2, 5)), ("none", ())])
def test_every_nth_layer_is_the_nth_of_each_n(words: str, layers: Any) -> None:
    """As torchtitan counts them."""
    assert [layer for layer in range(8) if recompute_share(words).applies(layer)] == list(layers)


@quick
@given(st.integers(1, LAYERS))
def test_each_layer_costs_its_forward_pass_again(every: int) -> None:
    """Hardware FLOPs grow by those of as many layers as run again, and the plan's number of layers does the same."""
    again = LAYERS // every
    one = (step(recompute="full").hardware_flop - step().hardware_flop) / LAYERS
    assert one >= LAYER_FLOP
    assert step(recompute=f"full:{every}").hardware_flop - step().hardware_flop == pytest.approx(again * one, rel=1e-9)
    assert step(recompute="full", recompute_layers=again).hardware_flop == pytest.approx(step(recompute=f"full:{every}").hardware_flop)


def test_fewer_layers_again_keep_more_and_take_less_time() -> None:
    """None, every third, every second, all."""
    found = [step(recompute=words) for words in ("none", "full:3", "full:2", "full")]
    assert [kept(each) for each in found] == sorted((kept(each) for each in found), reverse=True)
    assert [each.step_s for each in found] == sorted(each.step_s for each in found)


@pytest.mark.parametrize(("words", "saved"), [("norms", 2 * SEQ * 2 * HIDDEN), ("activations", SEQ * 2 * 4 * HIDDEN)])
def test_ops_that_feed_products_spare_their_inputs(words: str, saved: int) -> None:
    """Two norms a layer feed products of h inputs each, one activation a product of 4h; 2 bytes a number. Their FLOPs are not counted."""
    assert kept(step()) - kept(step(recompute=words)) == LAYERS * saved
    assert step(recompute=words).step_s > step().step_s
    assert step(recompute=words).hardware_flop == step().hardware_flop


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"recompute": "ful"}, "did you mean 'full'"),
        ({"recompute": "full:0"}, "write full:2"),
        ({"recompute": "none:2"}, "share of nothing"),
        ({"recompute": "full:2", "recompute_layers": 2}, "both say which layers"),
        ({"recompute_layers": 2}, "nothing to recompute"),
        ({"recompute": "full", "recompute_layers": 9}, "holds 8 layers"),
        ({"recompute": "full:9"}, "no layer of the 8"),
    ],
)
def test_shares_that_contradict_or_hold_nothing_are_refused(plan: dict[str, Any], words: str) -> None:
    """Each names the other option, or what there is."""
    with pytest.raises(PlanError, match=words):
        step(**plan)


def test_a_class_of_ops_that_a_model_lacks_is_refused() -> None:
    """Bare products have no norms."""
    with pytest.raises(PlanError, match="has norms"):
        simulate(hand.linear_model(layers=2), hand.cluster(), Plan(recompute="norms"), Recipe(global_batch=1), software=hand.software())
