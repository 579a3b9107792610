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
from foretrain.validate.cells import text, whole
from foretrain.validate.clock_rows import clock_outcomes
from foretrain.validate.curves import curve_outcomes
from foretrain.validate.errors_plot import plot_errors
from foretrain.validate.llm_rows import measured
from foretrain.validate.runs_file import Line, read_runs
from foretrain.validate.summary import Outcome, Summary, summarise
from foretrain.validate.summary_text import format_summary

__all__ = ["format_summary", "validate_published"]

COLUMNS = (
    "row", "id", "quantity", "measured", "predicted", "error_pct", "lower_80", "upper_80", "lower_95", "upper_95", "assumed", "reason",
)  # fmt: skip

CURVES = ("network", "collectives")
"""Kinds of file that hold collectives, not steps."""
CLOCKS = "clock_energy_runs"
"""Kind of file that holds passes of pipeline stages by clock."""


def validate_published(path: Path | None, out: Path, *, progress: Progress | None = None, executor: Executor | None = None) -> Summary:
    """Predict the runs of `path` (None: those of the package), write predictions.csv, summary.json and errors.png, return the summary.

    Raises:
        UsageError: where the file is missing, empty or of no kind that is understood.
        OutputError: where `out` cannot be written.
    """
    runs = read_runs(path)
    _prepare(out)
    if runs.kind in CURVES:
        outcomes = curve_outcomes(runs.lines, progress=progress)
    elif runs.kind == CLOCKS:
        outcomes = clock_outcomes(runs.lines, progress=progress)
    else:
        outcomes = predict_lines(runs.lines, progress=progress, executor=executor)
    summary = summarise(outcomes, file=runs.name, kind=runs.kind)
    _write_predictions(outcomes, out / "predictions.csv")
    _write_summary(summary, out / "summary.json")
    plot_errors(outcomes, out / "errors.png")
    return summary


def predict_lines(lines: Sequence[Line], *, progress: Progress | None = None, executor: Executor | None = None) -> list[Outcome]:
    """Return an outcome per line and measured quantity, in the order of the lines."""
    sound = [line.cells for line in lines if not line.fault]
    replies = iter(answers(sound, progress=progress, executor=executor))
    return [
        outcome
        for index, line in enumerate(lines)
        for outcome in _outcomes(index, line, Answer(reason=line.fault) if line.fault else next(replies))
    ]


def _outcomes(index: int, line: Line, reply: Answer) -> Iterator[Outcome]:
    """Yield the step time, and the memory where the row measured it (alone, where it measured nothing else)."""
    blank = _blank(index, line, reply)
    try:
        found = measured(line.cells)
    except ForetrainError as error:
        yield replace(blank, reason=str(error))
        return
    if found.step_time_s is not None or found.memory_bytes is None:
        yield replace(blank, measured=found.step_time_s, predicted=reply.step_time_s)
    if found.memory_bytes is not None:
        yield replace(blank, quantity="memory_bytes", measured=found.memory_bytes, predicted=reply.memory_bytes)


def _blank(index: int, line: Line, reply: Answer) -> Outcome:
    """Return the outcome of a line before its figures."""
    cells = line.cells
    return Outcome(
        row=index,
        id=_identity(cells),
        quantity="step_time_s",
        measured=None,
        predicted=None,
        fits=reply.fits,
        assumed=reply.assumed,
        reason=reply.reason,
        source=text(cells, "source_key"),
        accelerator=text(cells, "accelerator"),
        framework=text(cells, "framework"),
        layout=layout_kind(cells),
        subset=text(cells, "subset"),
        complete=text(cells, "complete") == "y",
        config_key=text(cells, "config_key"),
    )


def _identity(cells: dict[str, str]) -> str:
    return text(cells, "id") or "|".join(text(cells, name) for name in ("source_key", "model", "n_accelerators", "global_batch_seqs"))


def layout_kind(cells: dict[str, str]) -> str:
    """Return the class of a layout: dp, zero1, fsdp, tp, tp+fsdp, pp, 3d (tp and pp), cp, or unknown."""
    try:
        tp, pp, cp = (whole(cells, name) for name in ("tp", "pp", "cp"))
    except ForetrainError:
        return "unknown"
    if tp is None or pp is None:
        return "unknown"
    words = text(cells, "zero_or_fsdp").upper().replace("-", "")
    sharded = "FSDP" in words or "HSDP" in words or "ZERO3" in words
    if (cp or 1) > 1:
        return "cp"
    if pp > 1:
        return "3d" if tp > 1 else "pp"
    if tp > 1:
        return "tp+fsdp" if sharded else "tp"
    return "fsdp" if sharded else "zero1" if "ZERO1" in words or "DISTRIBUTED" in words else "dp"


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
