"""What a calibration found, as text and data: errors before, after and held out, numbers with their uncertainty, what was not told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from foretrain.validate.calibration.profile import Origin
from foretrain.validate.calibration.robust import Fitted, Vector
from foretrain.validate.calibration.stages import Calibrated, Stage

COLUMNS = ("median", "mean", "worst")


def summary(errors: Vector) -> dict[str, float] | None:
    """Return median, mean and worst of the absolute relative errors; None where there are none."""
    found = np.abs(np.expm1(errors[~np.isnan(errors)]))
    return {"median": float(np.median(found)), "mean": float(found.mean()), "worst": float(found.max())} if len(found) else None


def residuals(found: Calibrated) -> dict[str, str]:
    """Return what a profile says of its own residuals: per stage, the median error on what was held out, else on what was fitted."""
    said = {}
    for stage in found.stages:
        held, fitted = summary(stage.held_out), summary(stage.after)
        if held is not None:
            said[stage.name] = f"median {held['median']:.1%} held out, {len(stage.keys)} measurements"
        elif fitted is not None:
            said[stage.name] = f"median {fitted['median']:.1%} fitted, {len(stage.keys)} measurements"
    return said


def report_data(found: Calibrated, origin: Origin, stamp: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report as plain data."""
    bases = {"cluster": origin.bases.cluster, "software": origin.bases.software}
    return {
        "name": origin.name, "date": origin.date, "device": origin.device, "bases": bases, "stamp": dict(stamp),
        "stages": [_stage(stage) for stage in found.stages], "left_at_base": list(found.left), "notes": list(found.notes),
    }  # fmt: skip


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name, "measurements": len(stage.keys), "before": summary(stage.before), "after": summary(stage.after),
        "held_out": summary(stage.held_out), "numbers": [_number(one) for one in stage.fitted], "worst": _worst(stage),
    }  # fmt: skip


def _number(one: Fitted) -> dict[str, Any]:
    return {
        "path": one.path, "base": one.base, "value": one.value, "uncertainty": one.uncertainty, "effect_of_5_percent": one.sensitivity,
        "identified": one.identified, "at_bound": one.at_bound,
    }  # fmt: skip


def _worst(stage: Stage, count: int = 5) -> list[dict[str, Any]]:
    """Return the measurements that are furthest off, as far as they were held out."""
    errors = stage.held_out if not np.isnan(stage.held_out).all() else stage.after
    order = np.argsort(-np.abs(np.nan_to_num(errors)))[:count]
    return [{"key": stage.keys[index], "error": math.expm1(float(errors[index]))} for index in order if not math.isnan(errors[index])]


def report_text(data: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# Calibration of {data['device']}", "",
        f"Written by `foretrain calibrate` on {data['date']}; not edited by hand. Base profiles: {data['bases']['cluster']} and "
        f"{data['bases']['software']}.", "",
        *_stamped(data["stamp"]), "", "## Errors", "",
        "Absolute relative errors: of the base; of the calibrated profile on what it was made from; and held out, a quarter at a time: of "
        "tables without the kernels and messages of that quarter, whose curves have seen all, and of fits without its steps.", "",
        "| what | n | base, median | fitted, median | held out, median | held out, worst |", "|---|---|---|---|---|---|",
        *(_error_row(stage) for stage in data["stages"]), "", "## Numbers", "",
        "| number | base | calibrated | ± | ±5 % moves predictions by | |", "|---|---|---|---|---|---|",
        *(_number_row(one) for stage in data["stages"] for one in stage["numbers"] if one["identified"]), "",
    ]  # fmt: skip
    if data["left_at_base"]:
        left = ", ".join(f"`{path}`" for path in data["left_at_base"])
        lines += [f"Not identified from these measurements, and left as the base has them: {left}.", ""]
    lines += [f"- {note}" for note in data["notes"]]
    lines += ["", "## Furthest off", ""]
    lines += [f"- {stage['name']}: {worst['key']} {worst['error']:+.0%}" for stage in data["stages"] for worst in stage["worst"][:3]]
    return "\n".join(lines).rstrip() + "\n"


def _stamped(stamp: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {value}" for name, value in (stamp.get("versions") or {}).items() if value)
    lines = [f"Versions: {versions}."] if versions else []
    gpu = stamp.get("gpu") or {}
    as_found = ", ".join(f"{name} {value}" for name, value in gpu.items() if value is not None and not isinstance(value, dict | list))
    return [*lines, *([f"Device as found: {as_found}."] if as_found else [])]


def _error_row(stage: Mapping[str, Any]) -> str:
    def cell(which: str, column: str) -> str:
        return "" if stage[which] is None else f"{stage[which][column]:.1%}"

    cells = (cell("before", "median"), cell("after", "median"), cell("held_out", "median"), cell("held_out", "worst"))
    return f"| {stage['name']} | {stage['measurements']} | " + " | ".join(cells) + " |"


def _number_row(one: Mapping[str, Any]) -> str:
    bound = "at its bound" if one["at_bound"] else ""
    values = f"{one['base']:.4g} | {one['value']:.4g} | {one['uncertainty']:.0%} | {one['effect_of_5_percent']:.1%}"
    return f"| `{one['path']}` | {values} | {bound} |"
