"""`foretrain plot scaling`: the same job on more and more nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from foretrain.charts.scaling import counted_in, left_out, row, save_scaling
from foretrain.charts.words import count, money, plan_words, sample_words
from foretrain.cli_job import Job, read_cluster, read_model, read_plan, read_recipe, read_settings, read_software
from foretrain.cli_options import JobOptions, LayoutOptions, ScalingOptions
from foretrain.cli_output import columns, ready_folder, say, say_json
from foretrain.errors import ProfileError, UsageError, shortened
from foretrain.fields import read_count
from foretrain.hardware.cluster import Cluster
from foretrain.sim.fill import fill
from foretrain.sim.sweep import ScalingPoint, efficiency, scaling
from foretrain.units import parse, show


def run_scaling(options: JobOptions, layout: LayoutOptions, only: ScalingOptions) -> int:
    """Predict every node count, draw the plot, print the points, and return the exit status."""
    folder = ready_folder(only.out)
    nodes = read_nodes(only.nodes)
    settings = read_settings(options.settings)
    _refuse_what_varies(settings)

    def cluster_at(count: int) -> Cluster:
        return read_cluster(options, settings, f"{_name(options)}:{count}")

    job = _largest_job(options, layout, settings, cluster_at(nodes[-1]))
    points = scaling(job.model, cluster_at, job.plan, job.recipe, nodes, only.mode, software=job.software, seed=options.seed)
    if not any(point.summary for point in points):
        raise UsageError(f"no node count can be placed; at {points[-1].nodes} nodes: {points[-1].reason}")
    paths = save_scaling(points, _title(options, job), folder)
    if only.json:
        item = counted_in(points)
        say_json([row(point, ratio, item) for point, ratio in zip(points, efficiency(points), strict=True)])
        return 0
    say(_table(points))
    for line in (*left_out(points), *(f"assumed: {text}" for text in job.assumed)):
        say(line)
    say(f"written to {folder}/: {', '.join(path.name for path in paths)}")
    return 0


def _refuse_what_varies(settings: Mapping[str, Mapping[str, str]]) -> None:
    for root, path in (("cluster", "nodes"), ("plan", "dp")):
        if path in settings[root]:
            raise UsageError(f"--set {root}.{path} cannot hold at every point of the plot, where --nodes gives it; leave it out")


def read_nodes(text: str) -> list[int]:
    """Return the node counts of `--nodes`, in rising order.

    Raises:
        UsageError: where one is no whole number from 1.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        counts = {read_count(word) for word in words}
    except ProfileError as error:
        raise UsageError(f"--nodes {shortened(text)}: {error}, such as 1,2,4,8") from None
    if not counts:
        raise UsageError(f"--nodes {shortened(text)} names no node count; give whole numbers from 1, such as 1,2,4,8")
    return sorted(counts)


def _largest_job(options: JobOptions, layout: LayoutOptions, settings: dict[str, dict[str, str]], largest: Cluster) -> Job:
    """Return the job with the batch that the largest cluster can divide, where none was given."""
    model, plan = read_model(options, settings), read_plan(layout, settings)
    copies = largest.accelerators // (plan.tp * plan.pp)
    filled = fill(plan, largest) if copies and largest.accelerators % (plan.tp * plan.pp) == 0 else plan
    recipe, assumed = read_recipe(options, settings, model, filled)
    software, assumed_software = read_software(options, settings)
    return Job(
        model=model, cluster=largest, software=software, plan=replace(plan, dp=1), recipe=recipe, assumed=(*assumed, *assumed_software)
    )


def _name(options: JobOptions) -> str:
    """Return the node or cluster without a count, which `--nodes` gives here."""
    name, colon, nodes = options.cluster.rpartition(":")
    return name if colon and nodes.isdecimal() else options.cluster


def _title(options: JobOptions, job: Job) -> str:
    plan = plan_words(job.plan).partition(", ")[2]
    batch = f"batch {job.recipe.global_batch:,} × {sample_words(job.model)} (weak: at the fewest nodes)"
    return f"{job.model.name} on {_name(options)}, {job.software.name}\n{plan}, {batch}, {job.recipe.precision}"


def _table(points: Sequence[ScalingPoint]) -> str:
    item = counted_in(points)
    short = item[:3]
    head = ("mode", "nodes", "dp", "batch", "step", f"{short}/s/acc.", "effic.", "MFU", f"J/{item}", "exposed", f"$/1M {short}")
    return columns([head, *(_cells(point, ratio) for point, ratio in zip(points, efficiency(points), strict=True))])


def _cells(point: ScalingPoint, ratio: float | None) -> tuple[str, ...]:
    one = point.summary
    if one is None or ratio is None:
        return (point.mode, str(point.nodes), *("-",) * 9)
    exposed, million = one.exposed_communication_s / one.step_s, parse("1 M", "1")
    return (
        point.mode, str(point.nodes), str(one.dp), str(point.global_batch), show(one.step_s, "s"), count(one.items_per_s_per_accelerator),
        f"{ratio:.1%}", f"{one.mfu:.1%}", show(one.energy_per_item_j, "1"), f"{exposed:.1%}", money(one.usd_per_item * million),
    )  # fmt: skip
