"""`foretrain plot roofline`: what an accelerator can do at each intensity, and where the kernels of a model lie."""

from __future__ import annotations

from collections.abc import Sequence

from foretrain.charts.roofline import point_row, roof_row, save_roofline
from foretrain.charts.words import sample_words
from foretrain.cli_options import RooflineOptions
from foretrain.cli_output import columns, ready_folder, say, say_json
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.load import load_accelerator
from foretrain.models.load import load_model
from foretrain.sim.roofline import RooflinePoint, roofline_points, roofs
from foretrain.sim.simulate import DEFAULT_SOFTWARE
from foretrain.software.load import load_software
from foretrain.units import show


def run_roofline(options: RooflineOptions) -> int:
    """Draw the roofline, print its roofs and kernels, and return the exit status."""
    accelerator = load_accelerator(options.accelerator)
    precision = options.precision or best_precision(accelerator)
    points, title = _points(options, accelerator, precision)
    folder = ready_folder(options.out)
    paths = save_roofline(accelerator, points, title, precision, folder)
    if options.json:
        say_json([*map(roof_row, roofs(accelerator)), *map(point_row, points)])
        return 0
    say(_roof_table(accelerator))
    if points:
        say("\n" + _kernel_table(points))
    say(f"written to {folder}/: {', '.join(path.name for path in paths)}")
    return 0


def best_precision(accelerator: Accelerator) -> str:
    """Return the precision that a large model would train in: bf16, else fp16, else the first that there is."""
    return next((name for name in ("bf16", "fp16") if name in accelerator.peak_flop_per_s), next(iter(accelerator.peak_flop_per_s)))


def _points(options: RooflineOptions, accelerator: Accelerator, precision: str) -> tuple[tuple[RooflinePoint, ...], str]:
    if options.model is None:
        return (), f"Roofline of {accelerator.name}"
    model = load_model(options.model)
    model = model.at_sequence(options.seq_len)
    software = load_software(options.software or DEFAULT_SOFTWARE)
    points = roofline_points(model, accelerator, software, precision=precision, micro_batch=options.micro_batch)
    job = f"{model.name}, micro-batch {options.micro_batch} × {sample_words(model)}, {precision}, {software.name}"
    return points, f"Roofline of {accelerator.name}\n{job}"


def _roof_table(accelerator: Accelerator) -> str:
    head = ("precision", "peak", "held by products", "ridge, FLOP/B")
    rows = [
        (roof.precision, show(roof.peak_flop_per_s, "FLOP/s"), show(roof.sustained_flop_per_s, "FLOP/s"), f"{roof.ridge_flop_per_byte:.0f}")
        for roof in roofs(accelerator)
    ]
    return columns([head, *rows])


def _kernel_table(points: Sequence[RooflinePoint]) -> str:
    total = sum(point.total_s for point in points)
    head = ("kernel", "direction", "count", "FLOP/B", "rate", "share")
    return columns([head, *(_cells(point, point.total_s / total) for point in sorted(points, key=lambda point: -point.total_s))])


def _cells(point: RooflinePoint, share: float) -> tuple[str, ...]:
    intensity, rate = (f"{point.intensity:.0f}", show(point.flop_per_s, "FLOP/s")) if point.flop else ("-", "-")
    return point.name, point.direction, str(point.count), intensity, rate, f"{share:.1%}"
