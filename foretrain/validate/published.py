"""Predict every row of a file of published runs and say how far the predictions are from what was measured."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from foretrain.errors import ForetrainError, OutputError
from foretrain.validate.answers import Answer, Progress, answers
from foretrain.validate.clock_rows import clock_outcomes
from foretrain.validate.curves import curve_outcomes
from foretrain.validate.errors_plot import plot_errors
from foretrain.validate.limit_rows import limit_outcomes
from foretrain.validate.power_rows import power_outcomes
from foretrain.validate.runs_file import Line, read_runs
from foretrain.validate.step_kinds import STEP_KINDS, StepKind
from foretrain.validate.summary import Outcome, Summary, summarise
from foretrain.validate.summary_text import format_summary

__all__ = ["format_summary", "validate_published"]

COLUMNS = (
    "row", "id", "quantity", "measured", "predicted", "error_pct", "lower_80", "upper_80", "lower_95", "upper_95", "assumed", "reason",
)  # fmt: skip

OTHERS = {
    "network": curve_outcomes,
    "collectives": curve_outcomes,
    "clock_energy_runs": clock_outcomes,
    "power_limit_runs": limit_outcomes,
    "power_runs": power_outcomes,
}
"""What predicts the kinds of file whose rows are no step times."""


def validate_published(path: Path | None, out: Path, *, progress: Progress | None = None, executor: Executor | None = None) -> Summary:
    """Predict the runs of `path` (None: those of the package), write predictions.csv, summary.json and errors.png, return the summary.

    Raises:
        UsageError: where the file is missing, empty or of no kind that is understood.
        OutputError: where `out` cannot be written.
    """
    runs = read_runs(path)
    _prepare(out)
    if runs.kind in STEP_KINDS:
        outcomes = predict_lines(runs.lines, runs.kind, progress=progress, executor=executor)
    else:
        outcomes = OTHERS[runs.kind](runs.lines, progress=progress)
    summary = summarise(outcomes, file=runs.name, kind=runs.kind)
    _write_predictions(outcomes, out / "predictions.csv")
    _write_summary(summary, out / "summary.json")
    plot_errors(outcomes, out / "errors.png")
    return summary


def predict_lines(
    lines: Sequence[Line], kind: str = "llm_runs", *, progress: Progress | None = None, executor: Executor | None = None
) -> list[Outcome]:
    """Return an outcome per line and measured quantity, in the order of the lines."""
    sound = [line.cells for line in lines if not line.fault]
    replies = iter(answers(sound, kind, progress=progress, executor=executor))
    return [
        outcome
        for index, line in enumerate(lines)
        for outcome in _outcomes(index, line, Answer(reason=line.fault) if line.fault else next(replies), STEP_KINDS[kind])
    ]


def _outcomes(index: int, line: Line, reply: Answer, kind: StepKind) -> Iterator[Outcome]:
    """Yield the step time, and the memory where the row measured it (alone, where it measured nothing else)."""
    blank = _blank(index, line, reply, kind)
    try:
        found = kind.measured(line.cells)
    except ForetrainError as error:
        yield replace(blank, reason=str(error))
        return
    if found.step_time_s is not None or found.memory_bytes is None:
        yield replace(blank, measured=found.step_time_s, predicted=reply.step_time_s)
    if found.memory_bytes is not None:
        yield replace(blank, quantity="memory_bytes", measured=found.memory_bytes, predicted=reply.memory_bytes)


def _blank(index: int, line: Line, reply: Answer, kind: StepKind) -> Outcome:
    """Return the outcome of a line before its figures."""
    names = kind.labels(line.cells)
    return Outcome(
        row=index, id=names.id, quantity="step_time_s", measured=None, predicted=None, fits=reply.fits, assumed=reply.assumed,
        reason=reply.reason, source=names.source, accelerator=names.accelerator, framework=names.framework, layout=names.layout,
        subset=names.subset, complete=names.complete, config_key=names.config_key,
    )  # fmt: skip


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write into {out}: {error.strerror}; give a folder that can be written") from error


def _write_predictions(outcomes: list[Outcome], path: Path) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows(_cells(outcome) for outcome in outcomes)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; give a folder that you may write to") from error


def _cells(outcome: Outcome) -> list[str]:
    numbers = (outcome.measured, outcome.predicted, outcome.error_pct)
    return [
        str(outcome.row), outcome.id, outcome.quantity, *("" if number is None else f"{number:.6g}" for number in numbers),
        "", "", "", "", "; ".join(outcome.assumed), outcome.reason.replace("\n", " "),
    ]  # fmt: skip


def _write_summary(summary: Summary, path: Path) -> None:
    try:
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; give a folder that you may write to") from error
