"""Calibrate a machine: measure it within a budget, or take what was measured, fit, and write its profiles and a report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from foretrain.errors import OutputError, UsageError
from foretrain.validate.calibration.bases import Bases, bases_of, machine_of
from foretrain.validate.calibration.own_runs import steps_in
from foretrain.validate.calibration.profile import Origin, write_profiles
from foretrain.validate.calibration.report import report_data, report_text, residuals
from foretrain.validate.calibration.stages import Calibrated, calibrated
from foretrain.validate.records import Record, of_kind, read_records
from foretrain.validate.undisturbed import undisturbed

STEPS_SHARE = 0.4
"""Of the budget, for whole steps; the rest is for microbenchmarks."""
CASE_S = {"cpu": 1.5, "cuda": 1.5}
"""Repeats of a step."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a calibration left: its findings, and where they are."""

    found: Calibrated
    data: Mapping[str, Any]
    cluster: Path
    software: Path
    report: Path


def measure(device: str, budget_s: float, path: Path, *, ranks: int | None, progress: Progress | None = None) -> list[Record]:
    """Measure microbenchmarks and whole steps within a budget, and return all records of the file.

    Raises:
        UsageError: where the machine is too busy to measure, or the device is not there.
        OutputError: where the file cannot be written; what was measured stays in it.
    """
    from foretrain.validate import microbench  # noqa: PLC0415  # brings torch
    from foretrain.validate.calibration.cases import cases_for  # noqa: PLC0415  # as above
    from foretrain.validate.measuring.busy import settled  # noqa: PLC0415  # as above
    from foretrain.validate.trainer import Settings, run_suite  # noqa: PLC0415  # as above

    load = settled(device, progress)
    if load:
        raise UsageError(f"this machine is too busy to calibrate: {load.text}; stop what else runs, and start again")
    records = microbench.measure(device, budget_s * (1 - STEPS_SHARE), path, ranks=ranks, progress=progress)
    found = ranks_of(records, device)
    software = bases_of(stamp_of(records)).software
    energy = device != "cpu"  # a processor's counter tells nothing of one process among others
    settings = Settings(device=device, seconds=CASE_S[device], software=software, energy=energy, budget_s=budget_s * STEPS_SHARE)
    run_suite(cases_for(device, found), path, settings, progress)
    return read_records(path)


def calibrate(records: Sequence[Record], bases: Bases, out: Path, *, name: str | None = None, runs: Path | None = None) -> Written:
    """Fit a machine to records and a file of the user's own runs, and write its profiles and report into `out`.

    Raises:
        UsageError: where there is nothing to fit, the name is none of a profile, or scipy is missing.
        OutputError: where `out` cannot be written.
    """
    stamp = stamp_of(records)
    label = _label(str(stamp.get("device_name") or bases.cluster)) if name is None else _named(name)
    machine = machine_of(bases, ranks_of(records, str(stamp.get("device", "cpu"))) if records else None)
    own, left_out = ([], []) if runs is None else steps_in(runs, machine)
    if not own and not any(record.kind in ("micro", "step") for record in records):
        raise UsageError("there is nothing to calibrate from; measure first, or give --runs FILE.csv")
    found = calibrated(machine, undisturbed(records), own)
    if left_out:
        found = replace(found, notes=(*found.notes, f"{len(left_out)} of the runs are left out; the first: {left_out[0]}"))
    origin = Origin(
        bases=bases, name=label, date=str(stamp.get("date") or _today())[:10], device=str(stamp.get("device_name") or bases.cluster),
        versions={key: str(value) for key, value in (stamp.get("versions") or {}).items() if value}, residuals=residuals(found),
    )  # fmt: skip
    cluster, software = write_profiles(found, origin, out)
    data = report_data(found, origin, stamp)
    return Written(found=found, data=data, cluster=cluster, software=software, report=_reported(found, data, out / f"{label}-report"))


def stamp_of(records: Sequence[Record]) -> Mapping[str, Any]:
    """Return what was noted of the machine; nothing where there is no stamp."""
    stamps = of_kind(records, "stamp")
    return stamps[0].data if stamps else {}


def ranks_of(records: Sequence[Record], device: str) -> int:
    """Return how many ranks were measured together."""
    shapes = [record.data.get("shape", {}) for record in of_kind(records, "micro")]
    worlds = [record.data.get("world_size", 1) for record in of_kind(records, "step")]
    return max([int(shape.get("ranks", 1)) for shape in shapes] + worlds, default=2 if device == "cpu" else 1)


def _reported(found: Calibrated, data: Mapping[str, Any], stem: Path) -> Path:
    from foretrain.validate.calibration.report_plot import plot_calibration  # noqa: PLC0415  # brings matplotlib

    path = stem.with_suffix(".md")
    try:
        path.write_text(report_text(data), encoding="utf-8")
        stem.with_suffix(".json").write_text(json.dumps(finite(data), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; give a folder that can be written") from error
    plot_calibration(found.stages, stem.with_suffix(".png"))
    return path


def finite(value: Any) -> Any:
    """Return plain data with nothing where there is no number, as JSON has it."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124  # not a number


def _label(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")[:60] or "machine"


def _named(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UsageError(f"--name {name!r} names no profile; use letters, digits, - and _, and --out for the folder")
    return name


def _today() -> str:
    from datetime import UTC, datetime  # noqa: PLC0415  # only without a stamp

    return datetime.now(UTC).date().isoformat()


def pace(found: Calibrated, when: Literal["before", "after"] = "before") -> float | None:
    """Return how much longer measured steps take than the base predicts, or the calibrated machine, in the middle; None without steps."""
    import numpy as np  # noqa: PLC0415

    stage = next((one for one in found.stages if one.name == "step"), None)
    if stage is None or np.isnan(getattr(stage, when)).all():
        return None
    return float(np.exp(-np.nanmedian(getattr(stage, when))))
