"""Times of a shared processor, taken to the pace that it has by itself."""

from __future__ import annotations

import random

import pytest

from foretrain.validate.measuring.timer import spread_of
from foretrain.validate.records import Record
from foretrain.validate.undisturbed import FEWEST, undisturbed

REFERENCE_S = 1e-3


def micro(seconds: float, slower: float) -> Record:
    spread = dict.fromkeys(("median", "q1", "q3"), seconds * slower)
    return Record(kind="micro", key=f"{seconds}", data={"seconds": {**spread, "repeats": 5}, "reference_s": REFERENCE_S * slower})


def step(seconds: float, slower: list[float]) -> Record:
    samples = {"step_s": [seconds * one for one in slower], "reference_s": [REFERENCE_S * one for one in slower]}
    found = spread_of(samples["step_s"])
    spread = {"median": found.median, "q1": found.q1, "q3": found.q3, "repeats": found.repeats}
    return Record(kind="step", key="step", data={"step_s": spread, "samples": samples})


def test_what_a_neighbour_slows_down_is_found_as_it_is_alone() -> None:
    """Half of the time by half: kernels and steps come out as without, whichever they met."""
    drawn = random.Random(0)
    slower = [drawn.choice((1.0, 1.5)) for _ in range(4 * FEWEST)]
    records = [micro(0.01 * (number + 1), one) for number, one in enumerate(slower)] + [step(0.2, slower)]
    found = undisturbed(records)
    for number, one in enumerate(found[:-1]):
        assert one.data["seconds"]["median"] == pytest.approx(0.01 * (number + 1))
        assert one.data["seconds"]["repeats"] == 5
    assert found[-1].spread("step_s").median == pytest.approx(0.2)
    assert found[-1].spread("step_s").relative == pytest.approx(0.0, abs=1e-9)
    assert found[-1].data["slowed"] == pytest.approx(spread_of(slower).median)


def test_a_quiet_processor_is_left_as_it_is() -> None:
    records = [step(0.2, [1.0] * FEWEST)]
    assert undisturbed(records)[0].spread("step_s") == records[0].spread("step_s")


@pytest.mark.parametrize(
    "data",
    [
        {"seconds": {"median": 1.0, "q1": 1.0, "q3": 1.0, "repeats": 5}},
        {"samples": {"step_s": [1.0]}},
        {"samples": {"step_s": [1.0], "reference_s": [1.0, 2.0]}},
        {"samples": {"step_s": ["long"], "reference_s": [0.0]}},
        {"samples": 5, "reference_s": "short"},
        {"skipped": "out of memory"},
    ],
)
def test_records_without_a_sound_reference_are_left_as_they_are(data: dict[str, object]) -> None:
    """Files of a GPU, of earlier versions, or written by hand."""
    quiet = [step(0.2, [1.0] * FEWEST)]
    assert undisturbed([*quiet, Record(kind="micro", key="other", data=data)])[-1].data == data


def test_few_references_tell_nothing() -> None:
    records = [micro(1.0, 1.5), micro(1.0, 1.0)]
    assert undisturbed(records) == records
