"""ZeRO-2 in both forms, and when gradients are reduced: bytes and seconds worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.profile import Software, TrainingState
from tests.sim import hand
from tests.sim.hand import GIGA

quick = settings(deadline=None, derandomize=True, max_examples=25)
LAYERS, PARAMETERS = 8, 8e6
RESTING = TrainingState(parameter_bytes=0.0, gradient_bytes=4.0, master_bytes=4.0, gather_bytes=2.0, reduce_bytes=4.0)
"""A framework that keeps only the sharded master copy, as FSDP does."""


def step(batch: int, *, software: Software | None = None, **plan: Any) -> Prediction:
    """Return the prediction of eight layers of a million parameters, eight devices on ports of 100 GB/s."""
    model = hand.linear_model(layers=LAYERS)
    return simulate(model, hand.cluster(), Plan(**plan), Recipe(global_batch=batch), software=software or hand.software())


def exchanged_s(prediction: Prediction) -> float:
    """Return the seconds of data-parallel exchange, hidden or not."""
    return prediction.breakdown["data_parallel"] + prediction.hidden.get("data_parallel", 0.0)


def components(prediction: Prediction) -> tuple[float, float, float]:
    """Return parameters, gradients and optimizer in bytes."""
    held = prediction.memory[0].components
    return held["parameters"], held["gradients"], held["optimizer"]


def test_gradients_and_optimizer_are_divided_and_parameters_whole() -> None:
    """Of 2 + 4 + 12 bytes a parameter over eight ranks the 2 stay. Rajbhandari et al., arXiv:1910.02054, figure 1."""
    assert components(step(8, dp=8, zero=2)) == (2 * PARAMETERS, 4 * PARAMETERS / 8, 12 * PARAMETERS / 8)


def test_parameters_that_rest_sharded_do_so_under_stage_2() -> None:
    """SHARD_GRAD_OP of a framework with only a master copy: nothing is kept in the compute dtype, all of it is gathered in a step."""
    prediction = step(8, dp=8, zero=2, software=hand.software(state=RESTING))
    assert components(prediction) == (0.0, 4 * PARAMETERS / 8, 12 * PARAMETERS / 8)
    assert prediction.memory[0].components["buffers"] == 2 * PARAMETERS + 4 * 1e6


@quick
@given(st.integers(2, 8), st.integers(1, 5))
def test_sharded_gradients_are_scattered_in_every_micro_batch(replicas: int, microbatches: int) -> None:
    """(n-1)/n of 4 bytes a parameter each, and 2 bytes to gather: once (arXiv:1910.02054, section 7.2.1), or each time where they rest.

    PyTorch's FSDP frees parameters after every backward pass: tests/validate/training/test_wire.py sees it do so.
    """
    for software, gathers in ((hand.software(), 1), (hand.software(state=RESTING), microbatches)):
        wire = (replicas - 1) / replicas * PARAMETERS * (4 * microbatches + 2 * gathers)
        prediction = step(replicas * microbatches, dp=replicas, zero=2, software=software)
        assert prediction.breakdown["data_parallel"] == pytest.approx(wire / (100 * GIGA), rel=1e-12)


@quick
@given(st.integers(1, 6), st.booleans())
def test_without_no_sync_gradients_are_reduced_in_every_micro_batch(microbatches: int, overlapped: bool) -> None:  # noqa: FBT001 - drawn
    """An all-reduce of 4 bytes a parameter, 2·7/8 of them on the wire, as often as there are micro-batches; else once."""
    software = hand.software(overlap=replace(hand.NO_OVERLAP, gradient_reduce=overlapped, gradient_bucket_bytes=4e6))
    once_s = 2 * 7 / 8 * 4 * PARAMETERS / (100 * GIGA)
    for sync, times in (("step", 1), ("micro-batch", microbatches), (None, 1)):
        prediction = step(8 * microbatches, dp=8, gradient_sync=sync, software=software)
        assert exchanged_s(prediction) == pytest.approx(times * once_s, rel=1e-9)


@pytest.mark.parametrize("state", [hand.software().state, RESTING])
def test_more_sharding_takes_less_memory(state: TrainingState) -> None:
    """Stage by stage, with two micro-batches and gathers ahead."""
    software = hand.software(state=state, overlap=hand.OVERLAP)
    peaks = [step(16, dp=8, zero=zero, software=software).memory[0].peak_bytes for zero in (0, 1, 2, 3)]
    assert peaks == sorted(peaks, reverse=True)


def test_whole_gradients_beside_sharded_ones_are_refused() -> None:
    """`no_sync` keeps what ZeRO-2 does not."""
    with pytest.raises(PlanError, match=r"gradient_sync=step keeps whole gradients.*zero=2 shards them"):
        Plan(dp=8, zero=2, gradient_sync="step")
    with pytest.raises(PlanError, match="did you mean 'step'"):
        Plan(gradient_sync="steps")
