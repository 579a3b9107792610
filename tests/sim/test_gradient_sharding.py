"""ZeRO-2 in both forms, and when gradients are reduced: bytes and seconds worked out by hand."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import foretrain as ft
from foretrain.errors import PlanError
from foretrain.sim.lower import lower
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.program import RESIZE
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.registry import SCHEDULES
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.software.profile import Software, TrainingState
from tests.sim import hand
from tests.sim.hand import GIGA

quick = settings(deadline=None, derandomize=True, max_examples=25)
LAYERS, PARAMETERS = 8, 8e6
CHUNKED = frozenset({"interleaved-1f1b", "looped-bfs", "interleaved-zb", "zb-v", "dualpipe-v"})
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


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("software", ["pytorch-fsdp", "deepspeed-zero3"])
def test_room_for_what_is_gathered_is_given_back(schedule: str, software: str) -> None:
    """Whatever is frozen, whatever the order of passes, and whether the ends of the model are one unit."""
    whole, machine, recipe = ft.load_model("gpt3-125m"), ft.load_cluster("dgx-h100:1"), Recipe(global_batch=8)
    tried = 0
    for model, zero, pp in product((whole, whole.frozen("embedding", "layers")), (2, 3), (1, 2)):
        with suppress(PlanError):  # of schedules that want more stages or chunks
            plan = Plan(dp=2, pp=pp, zero=zero, schedule=SCHEDULES[schedule](), vpp=2 if schedule in CHUNKED else 1)
            for program in lower(place(model, machine, plan, recipe), load_software(software)).job.programs:
                steps = [step.operand for repeat in program.repeats for step in repeat.body * repeat.times if step.opcode == RESIZE]
                grown = list(accumulate(steps, initial=0.0))
                assert min(grown) > -1.0
                assert grown[-1] == pytest.approx(0.0, abs=1.0)
                tried += bool(steps)
    assert tried
