"""`foretrain calibrate`: this machine, or the user's runs, as profiles with their residuals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretrain.cli_options import CalibrateOptions
from foretrain.cli_output import columns, cut, ink, progress, ready_folder, say, say_json
from foretrain.errors import UsageError
from foretrain.units import parse

SHORTEST_S = 10.0
LONGEST_S = 86_400.0


def run_calibrate(options: CalibrateOptions) -> int:
    """Measure, or take what was measured, fit, write, say what was found, and return the exit status."""
    from foretrain.validate import calibrate  # noqa: PLC0415  # brings what a fit needs
    from foretrain.validate.calibration.bases import bases_of  # noqa: PLC0415  # as above

    budget_s = _budget(options.budget)
    folder = ready_folder(options.out)
    path = options.measurements or folder / "measurements.jsonl"
    records = _records(options, path, budget_s)
    stamp = calibrate.stamp_of(records)
    if not records and options.cluster is None:
        raise UsageError("runs alone do not say which machine they ran on; name the node or cluster with --cluster, and --software")
    bases = bases_of(stamp, options.cluster, options.software)
    written = calibrate.calibrate(records, bases, folder, name=options.name, runs=options.runs)
    if options.json:
        say_json(calibrate.finite(written.data))
        return 0
    _say_found(written)
    return 0


def _records(options: CalibrateOptions, path: Path, budget_s: float) -> list[Any]:
    from foretrain.validate import calibrate  # noqa: PLC0415  # as above
    from foretrain.validate.devices import device_of  # noqa: PLC0415  # as above
    from foretrain.validate.records import read_records  # noqa: PLC0415  # as above

    if options.replay:
        if not path.exists():
            raise UsageError(f"--replay fits what was measured, but there is no {path}; give --measurements FILE.jsonl")
        return read_records(path)
    if options.runs is not None and options.measurements is None:
        return []
    device = device_of(options.device)
    try:
        return calibrate.measure(device, budget_s, path, ranks=options.ranks, progress=progress)
    except KeyboardInterrupt:
        say(f"stopped; {path} keeps what was measured, and the same command goes on from there")
        raise


def _budget(text: str) -> float:
    budget_s = parse(text, "s")
    if not SHORTEST_S <= budget_s <= LONGEST_S:
        raise UsageError(f"--budget {text} is out of range; give 10s to a day, such as 120s")
    return budget_s


def _say_found(written: Any) -> None:
    from foretrain.validate.calibrate import pace  # noqa: PLC0415  # as above

    data = written.data
    say(ink().strong(f"{data['device']}: calibrated from {sum(stage['measurements'] for stage in data['stages'])} measurements"))
    say(cut(columns([("what", "n", "base", "fitted", "held out", "worst held out"), *map(_row, data["stages"])])))
    moved, left = pace(written.found), pace(written.found, "after")
    if moved is not None and left is not None:
        say(f"measured steps take {moved:.2f} times what the base profiles predict, in the middle, {left:.2f} times what the calibrated do")
    say(cut(columns([("number", "base", "calibrated", "±"), *_numbers(data["stages"])])))
    flagged = [one["path"] for stage in data["stages"] for one in stage["numbers"] if one["at_bound"]]
    if flagged:
        say(f"at the bound of what is physical: {', '.join(flagged)}")
    if data["left_at_base"]:
        say(f"not identified, left at the base: {', '.join(data['left_at_base'])}")
    for note in data["notes"]:
        say(note)
    say(f"written to {written.cluster}, {written.software} and {written.report}")
    say(f"foretrain simulate --cluster {written.cluster} --software {written.software} … predicts with them")


def _row(stage: dict[str, Any]) -> tuple[str, ...]:
    def cell(which: str, column: str = "median") -> str:
        return "" if stage[which] is None else f"{stage[which][column]:.1%}"

    return stage["name"], str(stage["measurements"]), cell("before"), cell("after"), cell("held_out"), cell("held_out", "worst")


def _numbers(stages: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (one["path"], f"{one['base']:.4g}", f"{one['value']:.4g}", f"{one['uncertainty']:.0%}")
        for stage in stages
        for one in stage["numbers"]
        if one["identified"]
    ]
