"""`foretrain validate compare`: a recorded trace beside the prediction of its job, or verdicts on a file of measured steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from foretrain.charts.parting import format_parting
from foretrain.cli_job import read_cluster, read_job, read_settings, read_software
from foretrain.cli_options import ComparedJobOptions, CompareOptions, JobOptions, LayoutOptions
from foretrain.cli_output import cut, dumped, ready_folder, say, say_json, write_text
from foretrain.cli_simulate import refuse_endless
from foretrain.errors import UsageError
from foretrain.sim.prediction import Prediction
from foretrain.sim.simulate import simulate
from foretrain.units import parse
from foretrain.validate.case import Case
from foretrain.validate.compare import RECORDS, Comparison, Predict, Verdict, case_named, compare_records, compare_trace, machine_of
from foretrain.validate.comparing.trace_file import Trace, read_trace
from foretrain.validate.comparing.verdict import FAIR_PCT
from foretrain.validate.comparing.verdict_summary import report_data
from foretrain.validate.comparing.verdict_text import format_report, format_verdicts, summary_lines
from foretrain.validate.records import Record, read_records

OF_THE_MACHINE = frozenset({"cluster", "software", "power_cap", "clock", "settings", "seed"})
"""Options that a measured case, which brings its own model, plan and recipe, leaves open."""


def run_compare(only: CompareOptions, options: ComparedJobOptions, layout: LayoutOptions) -> int:
    """Compare a trace or measurements with predictions, print what came out, and return the exit status."""
    folder = None if only.out is None else ready_folder(only.out)
    if only.file.suffix == RECORDS:
        _refuse_of_traces(only)
        records = read_records(only.file)
        return _verdicts(records, _predictor(options, layout, only, f"{only.file}"), folder, as_json=only.json)
    trace = read_trace(only.file)
    comparison = compare_trace(trace, _prediction(trace, only, options, layout), step=only.step)
    data = comparison.to_dict()
    if only.json:
        say_json(data)
    else:
        say(cut(format_parting(data)))
    if folder is not None:
        _write_comparison(comparison, data, folder, say_so=not only.json)
    return 0


# ── a trace ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _prediction(trace: Trace, only: CompareOptions, options: ComparedJobOptions, layout: LayoutOptions) -> Prediction:
    """Return the prediction of the job that the options or a measured case say."""
    if only.case is not None:
        return _predictor(options, layout, only, "--case")(case_named(only.case))
    if not options.model:
        raise UsageError(f"{trace.path} does not say what was trained; give --model, or --case RECORDS.jsonl:NAME")
    job = read_job(options, layout, dp=only.dp, unfold=())
    refuse_endless(job, "op", "compare")
    return simulate(job.model, job.cluster, job.plan, job.recipe, software=job.software, seed=options.seed)


def _write_comparison(comparison: Comparison, data: Mapping[str, Any], folder: Path, *, say_so: bool) -> None:
    from foretrain.validate.comparing.merge import write_merged  # noqa: PLC0415  # numpy, only where a trace is written

    write_text(folder / "compare.json", dumped(data))
    write_text(folder / "compare.txt", format_parting(dict(data)))
    title = f"{comparison.prediction.model}: predicted and measured"
    write_merged(comparison.trace, comparison.chosen.step, comparison.timeline, folder / "merged.json.gz", title=title)
    if say_so:
        say(f"\nwritten to {folder}/: compare.json, compare.txt\n  and merged.json.gz, both timelines, which ui.perfetto.dev opens")


# ── measurements ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _verdicts(records: Sequence[Record], predict: Predict, folder: Path | None, *, as_json: bool) -> int:
    found, machine = compare_records(records, predict), machine_of(records)
    data = report_data(found, machine)
    if as_json:
        say_json(data)
    else:
        say(cut(format_verdicts(found)))
    if folder is not None:
        _write_verdicts(found, data, folder, say_so=not as_json)
    return 0


def _write_verdicts(found: list[Verdict], data: Mapping[str, Any], folder: Path, *, say_so: bool) -> None:
    from foretrain.charts.compared import Point, save_compared  # noqa: PLC0415  # matplotlib, only where a picture is drawn

    points = [
        Point(
            name=one.name, kind=one.kind, measured_s=one.measured.median, q1_s=one.measured.q1, q3_s=one.measured.q3,
            predicted_s=one.predicted_s,
        )
        for one in found
        if one.measured is not None and one.predicted_s is not None
    ]  # fmt: skip
    png, svg = save_compared(points, "\n".join(summary_lines(found)[:2]), parse(f"{FAIR_PCT} %", "1"), folder)
    write_text(folder / "compare.json", dumped(data))
    write_text(folder / "compare.md", format_report(found, data["machine"], png.name))
    if say_so:
        say(f"\nwritten to {folder}/: compare.md, compare.json, {png.name}, {svg.name}")


def _predictor(options: ComparedJobOptions, layout: LayoutOptions, only: CompareOptions, what: str) -> Predict:
    """Return what predicts a case on the cluster and with the software of the options.

    Raises:
        UsageError: where an option says what a case says itself.
    """
    said = [*_given(options, OF_THE_MACHINE), *_given(layout, frozenset()), *(["--dp"] if only.dp is not None else [])]
    if said:
        raise UsageError(f"{what} says model, plan and recipe itself; leave out {', '.join(said)}")
    settings = read_settings(options.settings)
    misplaced = next((root for root in ("plan", "recipe", "model") if settings[root]), None)
    if misplaced is not None:
        raise UsageError(f"{what} says model, plan and recipe itself; leave out --set {misplaced}.{next(iter(settings[misplaced]))}")
    cluster, (software, _) = read_cluster(options, settings), read_software(options, settings)

    def predict(case: Case) -> Prediction:
        from foretrain.validate import predict_case  # noqa: PLC0415  # brings torch, which only a case that is predicted needs

        return predict_case.predict(case, cluster, software)

    return predict


def _given(options: JobOptions | LayoutOptions, apart: frozenset[str]) -> list[str]:
    """Return the options that are not as they are without being given, but those `apart`."""
    changed = [one.name for one in fields(options) if getattr(options, one.name) != one.default]
    return [f"--{name.replace('_', '-')}" for name in changed if name not in apart]


def _refuse_of_traces(only: CompareOptions) -> None:
    """Refuse options of traces where measurements are compared."""
    for name, value in (("--case", only.case), ("--step", only.step)):
        if value is not None:
            raise UsageError(f"{name} {value} chooses what a trace is compared with, but {only.file} holds measurements; leave it out")
