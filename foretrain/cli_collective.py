"""`foretrain plot collective`: bandwidth against size, measured points beside."""

from __future__ import annotations

from collections.abc import Sequence

from foretrain.charts.collective import row, save_collective
from foretrain.cli_options import CollectiveOptions
from foretrain.cli_output import columns, ready_folder, say, say_json
from foretrain.hardware.load import load_cluster
from foretrain.sim.curve import CurvePoint, curve, lone_span
from foretrain.units import parse, show
from foretrain.validate.measured_curves import measured_points


def run_collective(options: CollectiveOptions) -> int:
    """Predict a collective over all sizes, draw it, print the points, and return the exit status."""
    cluster = load_cluster(options.cluster if ":" in options.cluster or "." in options.cluster else f"{options.cluster}:1")
    ranks = options.ranks or cluster.accelerators
    points = curve(options.collective, cluster, lone_span(cluster, ranks), _sizes())
    measured = measured_points(options.collective, cluster, ranks)
    folder = ready_folder(options.out)
    title = f"{options.collective.replace('_', '-')} of {ranks} × {cluster.accelerator.name}, {cluster.name}"
    paths = save_collective(points, measured, title, folder)
    if options.json:
        say_json([row(point) for point in points])
        return 0
    say(_table(points))
    say("measured: " + (", ".join(f"{system} ({len(found)} points)" for system, found in measured.items()) or "nothing like it"))
    say(f"written to {folder}/: {', '.join(path.name for path in paths)}")
    return 0


def _sizes() -> list[float]:
    """Return sizes from 1 KiB to 16 GiB, four to a doubling."""
    return [parse("1 KiB", "B") * 2.0 ** (step / 4) for step in range(24 * 4 + 1)]


def _table(points: Sequence[CurvePoint]) -> str:
    head = ("size", "time", "bus bandwidth", "algorithm")
    rows = [
        (f"{show(point.size_bytes, 'B')}", show(point.time_s, "s"), show(point.busbw_bytes_per_s, "B/s"), point.algorithm)
        for point in points[::8]
    ]
    return columns([head, *rows])
