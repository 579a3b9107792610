"""Cases on other frameworks than torch: a second opinion of what a step takes, by code that shares nothing with the torch trainer."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretrain.errors import UsageError
from foretrain.validate.case import Case, case_data
from foretrain.validate.measuring.stamp import opened
from foretrain.validate.records import Record, append_record, of_kind
from foretrain.validate.training.second_plans import check_second

DEVICES = ("cpu", "cuda")
SOFTWARE: Mapping[tuple[str, str], str] = {
    ("jax", "cpu"): "xla",
    ("jax", "cuda"): "xla-gpu",
    ("tensorflow", "cpu"): "tensorflow-2",
    ("tensorflow", "cuda"): "tensorflow-2",
}
"""Software profiles that predict what a framework does on a kind of device."""
COMPILING_S = 1800.0
"""A process that takes longer than this beside its budget hangs."""


def software_for(backend: str, device: str) -> str:
    """Return the software profile that predicts a framework on a kind of device.

    Raises:
        UsageError: for torch, whose profile is that of its layout.
    """
    try:
        return SOFTWARE[backend, device]
    except KeyError:
        known = ", ".join(f"{one} on {kind}" for one, kind in SOFTWARE)
        raise UsageError(f"{backend} on {device} has no software profile of its own; known are {known}; name one with --software") from None


def run_backend_case(case: Case, *, device: str, seconds: float, path: Path, seed: int = 0) -> Record:
    """Run a case on its framework for about so many seconds beside compilation; append its `step` record to a file and return it.

    A case that the file holds already is not run again.

    Raises:
        PlanError, RecipeError, UsageError: for what that framework's trainer does not run, with the reason and a remedy.
        OutputError: where the file cannot be written.
    """
    if device not in DEVICES or case.backend not in ("jax", "tensorflow"):
        raise UsageError(f"{case.backend} on {device} is no second opinion; use jax or tensorflow on {' or '.join(DEVICES)}")
    if not math.isfinite(seconds) or seconds <= 0:
        raise UsageError(f"seconds={seconds} is no time to measure for; give a number above 0")
    check_second(case, device)
    if importlib.util.find_spec(case.backend) is None:
        raise UsageError(f"{case.backend} is not installed; pip install 'foretrain[{case.backend}]'")
    key = f"{case.name}/{device}/{case.backend}"
    for one in of_kind(opened(path, device), "step"):
        if one.key == key and one.data["case"] == json.loads(json.dumps(case_data(case))):
            return one
    record = Record(kind="step", key=key, data=_data(case, {"device": device, "seconds": seconds, "seed": seed}))
    append_record(path, record)
    return record


def _data(case: Case, settings: Mapping[str, Any]) -> dict[str, Any]:
    found, device = _child(case, settings), settings["device"]
    return {
        "case": case_data(case), "device": device, "world_size": case.plan.ranks, "threads": 1, "backend": case.backend,
        "software": software_for(case.backend, device), "device_s": None, "trace": None,
        "energy": {"source": "unavailable", "reason": f"the {case.backend} trainer reads no power meter"}, **found,
    }  # fmt: skip


def _child(case: Case, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a process of its own measures."""
    asked, limit_s = json.dumps({"case": case_data(case), "settings": settings}), COMPILING_S + 10 * settings["seconds"]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "foretrain.validate.training.second_child", str(answer)]
        try:
            ended = subprocess.run(
                command, input=asked, capture_output=True, text=True, check=False, timeout=limit_s, env=_environment()
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise UsageError(f"{case.backend} did not end case {case.name} in {error.timeout:g} s; use a smaller network") from error
        if not answer.exists():
            lines = [line for line in ended.stderr.splitlines() if line.strip()] or ["no message"]
            raise UsageError(
                f"{case.backend} ended case {case.name} with status {ended.returncode}: {lines[-1][:300]}; use a smaller batch or network"
            )
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise UsageError(found["error"])
    data: dict[str, Any] = found["data"]
    return data


def _environment() -> dict[str, str]:
    """Return this process's environment, in which a child finds this same package."""
    package = str(Path(__file__).resolve().parents[3])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))}
