"""Sweeps over clocks: what is read of a file, what is predicted beside it, and where the least energy lies."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import median

import pytest

import foretrain.validate.data
from foretrain.errors import ProfileError
from foretrain.validate.clock_jobs import model_named, sweep
from foretrain.validate.clock_rows import clock_outcomes
from foretrain.validate.published import validate_published
from foretrain.validate.runs_file import Line, read_runs
from foretrain.validate.summary import Outcome

DATA = Path(str(foretrain.validate.data.__path__[0])) / "clock_energy_runs.csv"
LINES = read_runs(DATA).lines
OUTCOMES = clock_outcomes(LINES)
MEGAHERTZ = 1e6
NEAR_HZ = 60 * MEGAHERTZ


def curves() -> dict[tuple[str, str], list[tuple[float, float, float]]]:
    """Return (clock in Hz, measured, predicted joules) of each stage and instruction."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for outcome in OUTCOMES:
        if outcome.quantity == "energy_j":
            assert outcome.measured is not None
            assert outcome.predicted is not None
            cells = LINES[outcome.row].cells
            point = (float(cells["sm_clock_MHz"]) * MEGAHERTZ, outcome.measured, outcome.predicted)
            found.setdefault((cells["stage"], cells["instruction"]), []).append(point)
    return found


CURVES = curves()


@pytest.mark.parametrize("key", CURVES, ids=" ".join)
def test_the_least_energy_lies_where_it_was_measured(key: tuple[str, str]) -> None:
    """Within 60 MHz, for every stage and instruction; the measured curves are flat and noisy near their minimum."""
    measured_hz = min(CURVES[key], key=lambda point: point[1])[0]
    predicted_hz = min(CURVES[key], key=lambda point: point[2])[0]
    assert abs(predicted_hz - measured_hz) <= NEAR_HZ


def test_times_and_energies_are_near_the_measured() -> None:
    """Median error below 3 % in time and energy, none above 6 %, of every row of the bundled sweep."""
    for quantity in ("time_s", "energy_j"):
        errors = [abs(o.predicted / o.measured - 1.0) for o in OUTCOMES if o.quantity == quantity and o.predicted and o.measured]
        assert len(errors) == len(LINES) == 152
        assert median(errors) < 0.03
        assert max(errors) < 0.06


def test_the_highest_clock_is_the_scale() -> None:
    """There, what is predicted is what was measured."""
    top = [o for o in OUTCOMES if LINES[o.row].cells["sm_clock_MHz"] == "1410"]
    assert len(top) == 8
    assert all(o.predicted == pytest.approx(o.measured) for o in top)


def row(**cells: str) -> Line:
    base = {"model": "gpt3-6.7b", "accelerator": "A40", "precision": "bf16", "stage": "0", "instruction": "forward",
            "sm_clock_MHz": "1200", "time_s": "0.05", "energy_j": "12", "source": "mine"}  # fmt: skip
    return Line(cells=base | cells)


def of(outcomes: list[Outcome], index: int) -> Outcome:
    return next(outcome for outcome in outcomes if outcome.row == index and outcome.quantity == "energy_j")


@pytest.mark.parametrize(
    ("accelerator", "model", "meant"),
    [
        ("A40", "GPT-3 XL", "gpt3-1.3b"), ("A100-PCIe", "gpt3-2.7b", "A100 PCIe 80 GB"), ("H100 SXM5", "llama2_7b", "tensor-parallel"),
        ("V100-PCIe-16GB", "bloom-3b", "tensor-parallel"), ("RTX 3090", "gpt2", "tensor-parallel"), ("MI300X", "bloom", "bloom-176b"),
    ],
)  # fmt: skip
def test_other_models_and_accelerators_are_simulated(accelerator: str, model: str, meant: str) -> None:
    """Any of the library's, as their makers write them; half the clock takes up to twice the time, and never less."""
    precision = "fp16" if accelerator.startswith("V100") else "bf16"
    cells = {"accelerator": accelerator, "model": model, "precision": precision}
    lines = [row(**cells, sm_clock_MHz="1200"), row(**cells, sm_clock_MHz="600", time_s="0.09")]
    outcomes = clock_outcomes(lines)
    assert not any(outcome.reason for outcome in outcomes)
    times = [outcome.predicted for outcome in outcomes if outcome.quantity == "time_s"]
    assert times[0] == pytest.approx(0.05)
    assert times[1] is not None
    assert 0.05 < times[1] <= 0.1 * (1 + 1e-9)
    said = "; ".join(outcomes[0].assumed)
    assert meant in said or meant == model_named(model)[0]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"model": "bert-large-uncased"}, "no model of the library"),
        ({"model": ""}, "no model of the library"),
        ({"accelerator": "abacus"}, "no accelerator of the library"),
        ({"accelerator": "TPU v4"}, "power.clocks"),
        ({"instruction": "sideways"}, "forward or backward"),
        ({"stage": "first"}, "whole numbers"),
        ({"sm_clock_MHz": "9000"}, "outside"),
        ({"sm_clock_MHz": ""}, "sm_clock_MHz is empty"),
        ({"energy_j": ""}, "energy_j is empty"),
        ({"precision": "fp3"}, "fp3"),
    ],
)
def test_rows_that_cannot_be_simulated_say_why(cells: dict[str, str], reason: str) -> None:
    """And both quantities of such a row stand in the outcomes, without a figure."""
    outcomes = clock_outcomes([row(**cells)])
    assert [outcome.quantity for outcome in outcomes] == ["time_s", "energy_j"]
    assert all(reason in outcome.reason and outcome.predicted is None for outcome in outcomes)


def test_a_clock_out_of_range_does_not_take_the_others_along() -> None:
    """The scale is then taken at the highest clock that the accelerator runs."""
    outcomes = clock_outcomes([row(sm_clock_MHz="9000"), row(sm_clock_MHz="1500"), row(sm_clock_MHz="1000")])
    assert of(outcomes, 0).reason
    assert of(outcomes, 1).predicted == pytest.approx(12)
    assert of(outcomes, 2).predicted is not None


def test_the_last_stage_has_the_head_of_the_model() -> None:
    """Its passes take longer than those of a stage in the middle."""
    job = sweep("gpt3-1.3b", "A40", 4, [1.2e9])
    middle, last = (job.point(place, "forward", 1.2e9) for place in ("middle", "last"))
    assert last.time_s > 1.05 * middle.time_s
    assert job.stages == 4


def test_a_part_that_cannot_draw_what_was_measured_is_not_meant() -> None:
    """474 W at the highest clock are more than an A100 of 400 W draws: the part of 500 W was measured."""
    assert "at 500 W" in " ".join(sweep("gpt2", "A100-SXM", 1, [1.2e9], drawn_w=474.0).assumed)
    assert "at 500 W" not in " ".join(sweep("gpt2", "A100-SXM", 1, [1.2e9], drawn_w=390.0).assumed)


def test_small_models_need_no_tensor_parallelism() -> None:
    """Sixteen bytes a parameter over the stages: 176 B in 8 stages takes eight ranks of 80 GB, 1.3 B takes one."""
    assert "tensor-parallel ranks: 8," in " ".join(sweep("bloom-176b", "A100-SXM", 8, [1.2e9]).assumed)
    assert "tensor-parallel ranks: 1," in " ".join(sweep("gpt3-1.3b", "A40", 8, [1.2e9]).assumed)


def test_an_unknown_model_names_its_nearest() -> None:
    """A slip of the pen is answered with what was meant."""
    with pytest.raises(ProfileError, match=r"gpt3-1\.3b"):
        model_named("gpt3-1.4b")


def test_validation_writes_two_lines_a_row(tmp_path: Path) -> None:
    """Time and energy, in the order of the file."""
    summary = validate_published(DATA, tmp_path)
    with (tmp_path / "predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(int(line["row"]), line["quantity"]) for line in lines[:3]] == [(0, "time_s"), (0, "energy_j"), (1, "time_s")]
    assert len(lines) == 2 * 152
    assert summary["rows_simulated"] == 152
