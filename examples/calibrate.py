"""Fit a machine to recorded measurements and predict a step with both: `python examples/calibrate.py [MEASUREMENTS.jsonl [DIR]]`.

Without a file it takes a sample of what `foretrain calibrate` measured on an H100, which lies in the repository. Microbenchmarks alone are
fitted, so that no torch is needed. With a folder, the calibrated profiles and a report are written there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import foretrain as ft
from foretrain.validate.calibrate import calibrate, stamp_of
from foretrain.validate.calibration.bases import bases_of, machine_of
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.calibration.report import summary
from foretrain.validate.calibration.stages import Calibrated, calibrated
from foretrain.validate.records import read_records

SAMPLE = Path(__file__).parents[1] / "tests" / "validate" / "data" / "recorded" / "h100-sample.jsonl"
MODEL = "gpt3-1.3b"
RECIPE = ft.Recipe(global_batch=8)
PLAN = ft.Plan(micro_batch=4)


def errors(found: Calibrated) -> list[str]:
    """Return a line a kind of kernel: median errors of the base, of the fit, and of what was held out of it."""
    lines = [f"{'':12}{'n':>5}{'base':>9}{'fitted':>9}{'held out':>10}"]
    for stage in found.stages:
        medians = [None if one is None else one["median"] for one in map(summary, (stage.before, stage.after, stage.held_out))]
        base, fitted, held_out = ("" if one is None else f"{one:.1%}" for one in medians)
        lines.append(f"{stage.name:12}{len(stage.keys):5}{base:>9}{fitted:>9}{held_out:>10}")
    return lines


def step(machine: Machine) -> ft.Prediction:
    """Return the reference step on a machine."""
    return ft.simulate(ft.load_model(MODEL), machine.cluster, PLAN, RECIPE, software=machine.software)


def main() -> None:
    """Fit, say how far it is off, and predict."""
    records = [record for record in read_records(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE) if record.kind != "step"]
    bases = bases_of(stamp_of(records))
    found = calibrate(records, bases, Path(sys.argv[2])).found if len(sys.argv) > 2 else calibrated(machine_of(bases, 1), records)
    print(f"{stamp_of(records)['device_name']}, from {bases.cluster} and {bases.software}: median errors")
    print("\n".join(errors(found)))
    moved = [one for stage in found.stages for one in stage.fitted if one.identified]
    furthest = max(moved, key=lambda one: one.sensitivity * abs(one.value / one.base - 1))
    print(f"{len(moved)} numbers are identified, {len(found.left)} left at the base; {furthest.path} matters most:")
    print(f"{furthest.base:.3g} in the base, {furthest.value:.3g} calibrated, ± {furthest.uncertainty:.0%}")
    base, after = step(found.base), step(found.machine)
    print(f"a step of {MODEL}, batch {RECIPE.global_batch}, one device: {base.step_s:.3f} s by the base, {after.step_s:.3f} s calibrated")


if __name__ == "__main__":
    main()
