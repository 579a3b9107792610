"""Wall power of nodes that train: mean, and rise over idle."""

from __future__ import annotations

import pytest

from foretrain.validate.power_rows import power_outcomes
from foretrain.validate.runs_file import Line, bundled_runs

RUNS = bundled_runs("power_runs.csv")


def test_the_bundled_file_is_recognised_and_sound() -> None:
    """Six benchmarks on one node."""
    assert (RUNS.kind, len(RUNS.lines)) == ("power_runs", 6)


def test_a_row_has_its_mean_power_and_its_rise_over_idle() -> None:
    """The rise over its own reading only where there is one, over the least of the system for all."""
    found = power_outcomes([line for line in RUNS.lines if line.cells["benchmark"] in ("bert", "resnet")])
    assert [(o.framework, o.quantity) for o in found] == [
        ("bert", "mean_power_w"), ("bert", "power_rise_w"), ("bert", "power_rise_over_least_idle_w"),
        ("resnet", "mean_power_w"), ("resnet", "power_rise_over_least_idle_w"),
    ]  # fmt: skip
    assert found[1].measured == pytest.approx(6846.33 - 2469.92)
    assert found[4].measured == pytest.approx(7040.58 - 2469.92)


def test_an_unknown_benchmark_has_its_reason() -> None:
    """And the nearest known."""
    (found,) = power_outcomes([Line(cells={**RUNS.lines[0].cells, "benchmark": "resnets"})])
    assert found.predicted is None
    assert "did you mean 'resnet'" in found.reason
