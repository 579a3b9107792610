"""Gradients of micro-batches that kernels of their own add up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from tests.sim import hand
from tests.sim.test_loading import MODEL


def added_s(microbatches: int, **plan: Any) -> float:
    """Return what adding up takes of a step of so many micro-batches."""
    given = Plan(**{"micro_batch": 1, **plan}), Recipe(global_batch=microbatches * plan.get("dp", 1))
    software = replace(hand.software(), adds_gradients=True)
    both = [simulate(MODEL, hand.cluster(), *given, software=one).step_s for one in (hand.software(), software)]
    return both[1] - both[0]


def test_the_first_micro_batch_has_nothing_to_add_to() -> None:
    """Three passes over all gradients for each of the others."""
    once = added_s(2)
    assert added_s(1) == 0.0
    assert once > 0.0
    assert added_s(5) == pytest.approx(4 * once, rel=1e-6)


def test_it_is_what_the_memory_takes() -> None:
    """No ramp and no launch: bytes over bandwidth."""
    cluster = hand.cluster()
    software = replace(hand.software(), adds_gradients=True)
    size = 3 * MODEL.parameters * software.state.reduce_bytes
    assert added_s(2) == pytest.approx(size / (cluster.accelerator.memory_bytes_per_s * cluster.accelerator.memory.efficiency), rel=0.05)
