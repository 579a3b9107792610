"""Measured training steps beside what a machine says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from foretrain.errors import ForetrainError
from foretrain.sim.prediction import Prediction
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.calibration.robust import Knob, Vector
from foretrain.validate.case import case_of
from foretrain.validate.predict_case import predict
from foretrain.validate.records import Record

FEW = 3
"""Below so many steps, one common pace is all that they can tell."""
SOME = 8
PACE = (
    Knob(path="software.matmul_scale", low=0.2, high=1.9, width=0.5),
    Knob(path="software.stream_scale", low=0.2, high=1.9, width=0.5),
    Knob(path="software.host.launch_s", low=5e-7, high=1e-3, width=0.5),
)
KNOBS = (
    Knob(path="software.matmul_scale", low=0.5, high=1.5, width=0.08),
    Knob(path="software.stream_scale", low=0.4, high=1.6, width=0.15),
    Knob(path="software.collective_scale", low=0.2, high=1.8, width=0.4),
    Knob(path="software.host.launch_s", low=5e-7, high=1e-3, width=0.7),
    Knob(path="software.host.view_s", low=1e-7, high=1e-4, width=1.0),
    Knob(path="software.host.cut_s", low=1e-6, high=5e-3, width=1.5),
    Knob(path="software.host.shard_s", low=1e-6, high=1e-3, width=0.7),
    Knob(path="software.host.unit_s", low=1e-5, high=5e-2, width=1.5),
    Knob(path="software.host.collective_s", low=1e-6, high=2e-2, width=1.2),
    Knob(path="software.host.step_s", low=1e-6, high=1.0, width=1.5),
    Knob(path="software.host.microbatch_s", low=1e-6, high=0.3, width=1.5),
    Knob(path="accelerator.overlap_loss", low=0.01, high=0.95, width=0.5),
    Knob(path="accelerator.spread", low=1e-3, high=0.3, width=0.7),
)
"""A step tells little of one kernel and much of the host: what microbenchmarks say of rates is held to, the host's time is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One measured step, and what predicts it on a machine."""

    key: str
    seconds: float
    joules: float | None = None
    """Of all its accelerators, at their own meters; None where nothing counted them."""
    predict: Callable[[Machine], Prediction]
    group: str
    """What is held out together in cross-validation."""


def steps_of(records: Sequence[Record]) -> list[Step]:
    """Return the measured steps among records; those that failed are left out."""
    return [_step(record) for record in records if record.kind == "step" and "step_s" in record.data]


def _step(record: Record) -> Step:
    case = case_of(record.data["case"])

    def predicted(machine: Machine) -> Prediction:
        return predict(case, machine.cluster, machine.software)

    joules = (record.data.get("energy") or {}).get("joules_per_step") if record.data.get("device") != "cpu" else None
    return Step(key=record.key, seconds=record.spread("step_s").median, joules=joules, group=case.net.text, predict=predicted)


def errors_of(machine: Machine, steps: Sequence[Step]) -> Vector:
    """Return log(predicted / measured) of steps; NaN where one cannot be predicted."""
    return np.array([_error(machine, step) for step in steps])


def _error(machine: Machine, step: Step) -> float:
    try:
        return float(np.log(step.predict(machine).step_s / step.seconds))
    except ForetrainError:
        return float("nan")


def knobs_for(count: int) -> tuple[Knob, ...]:
    """Return what so many steps may move: with a few, one pace each of kernels and of the host; with more, the rest of its time too."""
    return PACE if count < FEW else KNOBS[:2] + KNOBS[3:5] + KNOBS[8:9] if count < SOME else KNOBS
