"""`foretrain plot power`: power over a step, the same step at every clock and under every cap, and its stages for Perseus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from foretrain.charts.power import PowerStory, power_rows, save_power, words_of
from foretrain.charts.table import overflow
from foretrain.charts.words import money, plan_words, sample_words
from foretrain.cli_job import Job, read_job, read_quantity
from foretrain.cli_options import JobOptions, LayoutOptions, PowerOptions
from foretrain.cli_output import columns, progress, ready_folder, say, say_json, warn, write_text
from foretrain.cli_simulate import refuse_endless
from foretrain.errors import UsageError, shortened
from foretrain.hardware.power import operated
from foretrain.sim.pareto import Operated, Setting, StagePoint, cap_steps, clock_steps, frontier, operated_steps, stage_csv, stage_points
from foretrain.units import show

CLOCKS = 12
CAPS = 8


def run_power(options: JobOptions, layout: LayoutOptions, only: PowerOptions) -> int:
    """Predict the job under every setting, draw the plot, print the points, and return the exit status."""
    folder = ready_folder(only.out)
    job = read_job(options, layout, dp=only.dp, unfold=())
    refuse_endless(job, "segment")
    settings = _settings(only, job)
    story = _story(job, settings)
    paths = [*save_power(story, folder), *_write_stages(story.stages, folder)]
    if not story.given.prediction.fits:
        warn(overflow(story.given.prediction))
    if only.json:
        say_json(power_rows(story))
        return 0
    say(_table(story))
    for line in (*_notes(job, story), *(f"assumed: {text}" for text in job.assumed)):
        say(line)
    say(f"written to {folder}/: {', '.join(path.name for path in paths)}")
    return 0


def _settings(only: PowerOptions, job: Job) -> tuple[Setting, ...]:
    """Return the settings to try, clocks first; none where the accelerator has no clocks and nobody named a setting.

    Raises:
        UsageError: where one is no frequency or power, or the accelerator cannot be set so.
    """
    chip = job.cluster.accelerator
    if chip.power.clocks is None and only.clocks is None and only.caps is None:
        return ()
    # A sweep that was not asked for is left out where only the other one was.
    alone = (only.clocks is None) != (only.caps is None)
    clocks = _listed("--clocks", only.clocks, "Hz", "1410MHz,1200MHz") if only.clocks else () if alone else clock_steps(chip, CLOCKS)
    caps = _listed("--caps", only.caps, "W", "400W,300W") if only.caps else () if alone else cap_steps(chip, CAPS)
    settings = (*(Setting(clock_hz=clock) for clock in clocks), *(Setting(cap_w=cap) for cap in caps))
    for one in settings:
        operated(job.cluster, cap_w=one.cap_w, clock_hz=one.clock_hz)
    return settings


def _listed(option: str, text: str, unit: str, example: str) -> tuple[float, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"{option} {shortened(text)} names nothing; give numbers with their unit, such as {example}")
    values = {read_quantity(option, word, unit, example) for word in words}
    return tuple(sorted((value for value in values if value is not None), reverse=True))


def _story(job: Job, settings: Sequence[Setting]) -> PowerStory:
    given, *tried = operated_steps(
        job.model, job.cluster, job.plan, job.recipe, _counted((Setting(), *settings), len(settings) + 1), software=job.software
    )
    stages = _stages(job, [one.clock_hz for one in settings if one.clock_hz is not None]) if settings else []
    return PowerStory(
        title=_title(job), power=job.cluster.accelerator.power, timeline=given.prediction.timeline(), given=given, operated=tried,
        stages=stages,
    )  # fmt: skip


def _stages(job: Job, clocks_hz: Sequence[float]) -> list[StagePoint]:
    """Return the passes of each stage at these clocks; at a dozen where only caps were asked for."""
    clocks_hz = clocks_hz or clock_steps(job.cluster.accelerator, CLOCKS)
    return stage_points(job.model, job.cluster, job.plan, job.recipe, clocks_hz, software=job.software)


def _counted(settings: Iterable[Setting], total: int) -> Iterator[Setting]:
    for number, setting in enumerate(settings):
        progress(number, total, "settings")
        yield setting
    progress(total, total, "settings")


def _write_stages(stages: Sequence[StagePoint], folder: Path) -> list[Path]:
    if not stages:
        return []
    write_text(folder / "stages.csv", stage_csv(stages).rstrip("\n"))
    return [folder / "stages.csv"]


def _title(job: Job) -> str:
    power, batch = job.cluster.accelerator.power, f"batch {job.recipe.global_batch:,} × {sample_words(job.model)}"
    settings = (Setting(cap_w=power.cap_w), Setting(clock_hz=power.clock_hz))
    parts = (plan_words(job.plan), batch, job.recipe.precision, *(words_of(one) for one in settings if one != Setting()))
    return f"{job.model.name} on {job.cluster.name}, {job.software.name}\n{', '.join(parts)}"


def _table(story: PowerStory) -> str:
    head = ("setting", "clock", "step", "vs given", "energy", "vs given", "mean W", "peak W", "cost", "front")
    best = frontier([story.given, *story.operated])
    points = [story.given, *story.operated]
    return columns([head, *(_cells(point, story.given, on_front=any(point is one for one in best)) for point in points)])


def _cells(point: Operated, given: Operated, *, on_front: bool) -> tuple[str, ...]:
    said, power = point.prediction, point.prediction.power
    return (
        words_of(point.setting), show(said.clock_hz, "Hz", 4) if said.clock_hz else "-",
        show(said.step_s, "s"), f"{said.step_s / given.step_s - 1.0:+.1%}", show(said.energy_j, "J"),
        f"{said.energy_j / given.energy_j - 1.0:+.1%}", f"{power['accelerator_mean_w']:.0f}", f"{power['accelerator_peak_w']:.0f}",
        money(said.cost_usd), "*" if on_front else "",
    )  # fmt: skip


def _notes(job: Job, story: PowerStory) -> list[str]:
    if not story.operated:
        return [f"no clocks or caps to try: the profile of {job.cluster.accelerator.name} has no power.clocks"]
    return ["front *: no other setting is better in both time and energy; mean and peak W are an accelerator's own, energy the facility's"]
