"""`foretrain simulate`: one training step, as a table or JSON, and into a folder with its timeline and picture."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

from foretrain.charts.table import overflow, table
from foretrain.charts.words import headline
from foretrain.cli_disturbance import read_disturbance
from foretrain.cli_job import Job, read_job
from foretrain.cli_options import JobOptions, LayoutOptions, SimulateOptions
from foretrain.cli_output import dumped, ink, ready_folder, say, say_json, warn, write_text
from foretrain.errors import UsageError, nearest
from foretrain.sim.prediction import DETAILS, Prediction
from foretrain.sim.report import prediction_to_dict
from foretrain.sim.simulate import simulate

DOES_NOT_FIT = 3
"""Exit status of a prediction that does not fit memory."""
LONGEST_TIMELINE = 5_000_000
"""Slices of a timeline at most: some minutes, and what a browser still opens."""


def run_simulate(options: JobOptions, layout: LayoutOptions, only: SimulateOptions) -> int:
    """Predict one training step, print it, and return the exit status."""
    if only.detail not in DETAILS:
        raise UsageError(f"detail {only.detail!r} is unknown; use one of {', '.join(DETAILS)}{nearest(only.detail, DETAILS)}")
    folder = None if only.out is None else ready_folder(only.out)
    job = read_job(options, layout, dp=only.dp, unfold=only.unfold)
    if folder is not None:
        refuse_endless(job, only.detail)
    prediction = simulate(
        job.model, job.cluster, job.plan, job.recipe, software=job.software, detail=only.detail, seed=options.seed,
        disturbance=read_disturbance(only.slow, only.jitter, only.samples),
    )  # fmt: skip
    prediction = replace(prediction, assumed=(*job.assumed, *prediction.assumed))
    if only.json:
        say_json(prediction_to_dict(prediction))
    else:
        say(table(prediction, ink()))
    if folder is not None:
        write_files(prediction, folder, say_so=not only.json)
    if prediction.fits:
        return 0
    warn(overflow(prediction))
    return DOES_NOT_FIT


def refuse_endless(job: Job, detail: str, option: str = "--out") -> None:
    """Refuse a timeline that nothing could hold or open, before it is played; `option` is what asks for it.

    Raises:
        UsageError: where it would have more than `LONGEST_TIMELINE` slices.
    """
    plan = job.plan
    ranks = plan.pp * prod(getattr(plan, name) for name in plan.unfold)
    kernels = sum(count * sum(1 for _ in block.ops) for block, count in job.model.blocks()) / plan.pp if detail == "op" else plan.vpp
    per_microbatch = 2 * ranks * kernels
    microbatches = job.recipe.global_batch // (plan.dp * plan.micro_batch)
    if microbatches * per_microbatch > LONGEST_TIMELINE:
        most = int(LONGEST_TIMELINE // per_microbatch) * plan.dp * plan.micro_batch
        raise UsageError(
            f"{option}: a timeline of {microbatches:,} micro-batches would have {microbatches * per_microbatch:,.0f} slices, above "
            f"{LONGEST_TIMELINE:,}; use a global batch of at most {most:,}, or leave out {option}"
        )


def write_files(prediction: Prediction, folder: Path, *, say_so: bool) -> None:
    """Write report.json, timeline.json.gz, picture.png and picture.svg."""
    from foretrain.charts.picture import save_picture  # noqa: PLC0415  # only where something is written
    from foretrain.sim.trace import write_trace  # noqa: PLC0415  # only where something is written

    write_text(folder / "report.json", dumped(prediction_to_dict(prediction)))
    timeline = prediction.timeline(prediction.detail)
    write_trace(timeline, folder / "timeline.json.gz", title=headline(prediction))
    # The picture shows whole passes, whatever the detail of the timeline.
    passes = timeline if prediction.detail == "segment" else prediction.timeline()
    png, svg = save_picture(prediction, passes, folder)
    if say_so:
        say(f"\nwritten to {folder}/: report.json, {png.name}, {svg.name}\n  and timeline.json.gz, which ui.perfetto.dev opens")
