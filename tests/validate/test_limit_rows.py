"""Sweeps over power limits: what is simulated, what is scaled, what a lower limit does."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from foretrain.validate.limit_rows import limit_outcomes
from foretrain.validate.limit_workloads import sweep_of
from foretrain.validate.published import validate_published
from foretrain.validate.runs_file import Line, bundled_runs
from foretrain.validate.summary import Outcome

RUNS = bundled_runs("power_limit_runs.csv")
BASE = {
    "gpu": "V100-PCIe-16GB (250 W cap range)", "dataset": "imagenet", "network": "resnet50", "batch_size": "64", "optimizer": "adadelta",
    "power_limit": "250", "time_per_epoch": "1000", "average_power": "200",
}  # fmt: skip


def outcomes(*changes: dict[str, str]) -> list[Outcome]:
    return limit_outcomes([Line(cells={**BASE, **change}) for change in changes])


def test_the_bundled_file_is_recognised_and_sound() -> None:
    """929 rows, recognised by their header."""
    assert (RUNS.kind, len(RUNS.lines)) == ("power_limit_runs", 929)
    assert not any(line.fault for line in RUNS.lines)


def test_time_is_scaled_at_the_highest_limit_and_power_is_not() -> None:
    """The row at the highest limit is its own reference, and quoted apart."""
    top, power, lower, _ = outcomes({}, {"power_limit": "125", "time_per_epoch": "1500"})
    assert (top.quantity, top.subset, top.predicted) == ("time_s", "reference", pytest.approx(1000.0))
    assert (power.quantity, power.subset) == ("mean_power_w", "core")
    assert power.predicted is not None
    assert power.predicted != power.measured
    assert lower.predicted is not None
    assert lower.predicted > 1000.0


@pytest.mark.parametrize("gpu", ["V100-PCIe-16GB", "A40"])
def test_a_lower_limit_is_slower_and_draws_less(gpu: str) -> None:
    """Monotonic over the limits of the sweep, and never above the limit."""
    limits = [250, 200, 150, 125, 100]
    found = outcomes(*({"gpu": gpu, "power_limit": str(watts), "time_per_epoch": "1000"} for watts in limits))
    times = [outcome.predicted or 0.0 for outcome in found if outcome.quantity == "time_s"]
    powers = [outcome.predicted or 0.0 for outcome in found if outcome.quantity == "mean_power_w"]
    assert times == sorted(times)
    assert powers == sorted(powers, reverse=True)
    assert all(power <= limit * 1.001 for power, limit in zip(powers, limits, strict=True))


def test_small_batches_leave_the_gpu_idle() -> None:
    """A network of small kernels in small batches waits for the host, draws little, and hardly notices a limit."""
    small, large = ({"network": "shufflenetv2", "dataset": "cifar100", "batch_size": size} for size in ("8", "1024"))
    found = outcomes(small, {**small, "power_limit": "125"}, large, {**large, "power_limit": "125"})
    said = {(outcome.quantity, outcome.id.split("|")[3], outcome.layout): outcome.predicted or 0.0 for outcome in found}
    time, power = ({key[1:]: value for key, value in said.items() if key[0] == name} for name in ("time_s", "mean_power_w"))
    assert power["8", "250 W"] < 0.7 * power["1024", "250 W"]
    assert time["8", "125 W"] / time["8", "250 W"] < time["1024", "125 W"] / time["1024", "250 W"]


def test_precision_and_optimizer_are_assumed_aloud() -> None:
    """TF32 where there is such a rate; Adadelta as itself."""
    assert (sweep_of(BASE).recipe.precision, sweep_of({**BASE, "gpu": "A40"}).recipe.precision) == ("fp32", "tf32")
    assert sweep_of(BASE).recipe.optimizer == "adadelta"
    assert any("PyTorch" in note for note in sweep_of(BASE).assumed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "tacotron"}, "not in this release's library"), ({"gpu": "Voodoo 2"}, "no accelerator"),
        ({"power_limit": "5"}, "out of range"), ({"average_power": "-"}, "average_power"), ({"optimizer": "lbfgs"}, "unknown"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_simulated_have_reasons(change: dict[str, str], words: str) -> None:
    """Both quantities, without a prediction."""
    found = outcomes(change)
    assert [outcome.predicted for outcome in found] == [None, None]
    assert all(words in outcome.reason for outcome in found)


def test_the_command_writes_its_three_files(tmp_path: Path) -> None:
    """From a file of the same header."""
    rows = [line.cells for line in RUNS.lines if line.cells["network"] == "resnet50" and line.cells["batch_size"] == "64"]
    path = tmp_path / "sweep.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    summary = validate_published(path, tmp_path / "out")
    assert set(summary["quantities"]) == {"time_s", "mean_power_w"}
    assert summary["quantities"]["time_s"]["headline"]["median_abs_error_pct"] < 15.0
    assert summary["quantities"]["mean_power_w"]["headline"]["median_abs_error_pct"] < 15.0
