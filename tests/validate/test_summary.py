"""Arithmetic of the summary on numbers worked by hand."""

from __future__ import annotations

import pytest

from foretrain.validate.summary import Outcome, configurations, mean_over_sources, statistics_of, summarise
from foretrain.validate.summary_text import format_summary


def outcome(  # one row of a table: every column is an argument
    row: int,
    measured: float | None,
    predicted: float | None,
    *,
    key: str = "",
    source: str = "a",
    subset: str = "core",
    complete: bool = True,
) -> Outcome:
    return Outcome(
        row=row, id=f"{source}-{row}", quantity="step_time_s", measured=measured, predicted=predicted, fits=True, assumed=(),
        reason="" if predicted else "not simulated", source=source, accelerator="A100", framework="F", layout="dp", subset=subset,
        complete=complete, config_key=key,
    )  # fmt: skip


def test_repeats_count_once_by_their_median() -> None:
    """Measured 8, 10, 30 and predicted 11 is one configuration, 10 % above its median."""
    found = configurations([outcome(i, measured, 11.0, key="k") for i, measured in enumerate((8.0, 30.0, 10.0))])
    assert len(found) == 1
    assert found[0].error_pct == pytest.approx(10.0)


def test_figures_are_those_worked_by_hand() -> None:
    """Errors of +10, -20 and +60 %, and one row that is not predicted."""
    rows = [outcome(0, 10.0, 11.0), outcome(1, 10.0, 8.0), outcome(2, 10.0, 16.0), outcome(3, 10.0, None)]
    figures = statistics_of(configurations(rows))
    assert (figures["configurations"], figures["n"], figures["coverage"]) == (4, 3, 0.75)
    assert figures["mean_abs_error_pct"] == pytest.approx(30.0)
    assert figures["median_abs_error_pct"] == pytest.approx(20.0)
    assert figures["mean_error_pct"] == pytest.approx(50.0 / 3)
    assert figures["within_10_pct"] == pytest.approx(1 / 3)
    assert [case["id"] for case in figures["worst"]] == ["a-2", "a-1", "a-0"]


def test_a_large_source_does_not_outweigh_a_small_one() -> None:
    """Nine configurations at 10 % and one of another source at 50 %: 14 % over all, 30 % over sources."""
    rows = [outcome(i, 10.0, 11.0) for i in range(9)] + [outcome(9, 10.0, 15.0, source="b")]
    found = configurations(rows)
    assert statistics_of(found)["mean_abs_error_pct"] == pytest.approx(14.0)
    assert mean_over_sources(found)["mean_abs_error_pct"] == pytest.approx(30.0)


def test_the_headline_holds_complete_core_configurations_only() -> None:
    """Incomplete rows, the grid and the source kept for robustness are quoted apart."""
    rows = [
        outcome(0, 10.0, 11.0),
        outcome(1, 10.0, 20.0, complete=False),
        outcome(2, 10.0, 30.0, subset="bulk_grid"),
        outcome(3, 10.0, 40.0, source="bigscience-v100"),
    ]
    figures = summarise(rows, file="f", kind="llm_runs")["quantities"]["step_time_s"]
    assert figures["headline"]["mean_abs_error_pct"] == pytest.approx(10.0)
    assert figures["incomplete"]["mean_abs_error_pct"] == pytest.approx(100.0)
    assert figures["bulk_grid"]["mean_abs_error_pct"] == pytest.approx(200.0)
    assert figures["by_source"]["bigscience-v100"]["mean_abs_error_pct"] == pytest.approx(300.0)


def test_nothing_predicted_is_said_and_not_divided_by() -> None:
    """A file of refusals has no error, and a coverage of zero."""
    summary = summarise([outcome(0, 10.0, None), outcome(1, None, None)], file="f", kind="llm_runs")
    figures = summary["quantities"]["step_time_s"]["headline"]
    assert (figures["n"], figures["coverage"], figures["mean_abs_error_pct"]) == (0, 0.0, None)
    assert summary["reasons"] == {"not simulated": 2}
    assert "0 of 2 rows" in format_summary(summary)


def test_the_table_fits_eighty_columns() -> None:
    """Long names and reasons are cut, never wrapped."""
    rows = [outcome(i, 10.0 * (i + 1), 11.0, source=f"{'source' * 10}{i}") for i in range(12)] + [outcome(20, 1.0, None)]
    assert max(len(line) for line in format_summary(summarise(rows, file="f", kind="llm_runs")).splitlines()) <= 80
