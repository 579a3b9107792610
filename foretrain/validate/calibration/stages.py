"""The stages of a calibration, in the order in which one builds on another, and how far each is off on what it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np

from foretrain.validate.calibration import host, kernels, network, power, steps, tables
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.calibration.robust import Fitted, Vector, fit, refit
from foretrain.validate.calibration.steps import Step
from foretrain.validate.records import Record

FOLDS = 4
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one stage did: errors, log(predicted / measured), of its measurements by key, of the base, after it, and held out of it."""

    name: str
    keys: tuple[str, ...]
    before: Vector
    after: Vector
    held_out: Vector
    fitted: tuple[Fitted, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A machine as it was and as it is, and the stages between."""

    base: Machine
    machine: Machine
    stages: tuple[Stage, ...] = ()
    left: tuple[str, ...] = ()
    """Numbers of a machine that nothing measured tells about, so that they stay what the base says."""
    notes: tuple[str, ...] = field(default=())


def calibrated(base: Machine, records: Sequence[Record], own: Sequence[Step] = ()) -> Calibrated:
    """Return the machine that microbenchmarks and measured steps describe; `own` are steps that come from elsewhere than records.

    Raises:
        UsageError: where scipy is missing.
    """
    found = Calibrated(base=base, machine=base)
    for stage in (_host, _kernels, _optimizer, _network, _power):
        found = stage(found, records)
    found = _steps(found, [*steps.steps_of(records), *own])
    fitted = {one.path for stage in found.stages for one in stage.fitted if one.identified}
    every = {one.path for stage in found.stages for one in stage.fitted}
    return replace(found, left=tuple(sorted(every - fitted)))


def _host(found: Calibrated, records: Sequence[Record]) -> Calibrated:
    return replace(found, machine=host.host_costs(found.machine, records))


def _kernels(found: Calibrated, records: Sequence[Record]) -> Calibrated:
    """Fit the curves of each kind of kernel, then put the tables over them."""
    points = kernels.points_of(records)
    machine, stages = found.machine, []
    for bench, knobs in kernels.knobs_of(machine, points).items():
        chosen = [point for point in points if point.bench == bench]
        plain = [point for point in chosen if bench != "stream" or point.what in kernels.PLAIN]
        if not plain:
            continue
        fitted, became = fit(machine, knobs, partial(kernels.errors_of, points=plain))
        held = _held_out(chosen, partial(tables.tabulated, fitted), kernels.errors_of)
        stages.append(
            Stage(
                name=bench, keys=tuple(point.key for point in chosen), before=kernels.errors_of(found.base, chosen),
                after=kernels.errors_of(tables.tabulated(fitted, chosen), chosen), held_out=held, fitted=became,
            )
        )  # fmt: skip
        machine = fitted
    return replace(found, machine=tables.tabulated(machine, points) if points else machine, stages=(*found.stages, *stages))


def _optimizer(found: Calibrated, records: Sequence[Record]) -> Calibrated:
    slower = host.optimizer_slowness(found.machine, records)
    measured = found.machine.accelerator.measured
    if not slower or measured is None:
        return found
    again = replace(measured, slowness={**measured.slowness, "fp32": {**measured.slowness.get("fp32", {}), **slower}})
    return replace(found, machine=found.machine.on(replace(found.machine.accelerator, measured=again)))


def _network(found: Calibrated, records: Sequence[Record]) -> Calibrated:
    loss = network.overlap_loss(records)
    machine = found.machine
    # Where the host is the device, a collective beside a product slows itself down too, of which the product tells nothing.
    if loss is not None and not machine.software.host.blocking:
        machine = found.machine.set({"accelerator.overlap_loss": loss})
    messages = network.messages_of(records)
    if not messages:
        return replace(found, machine=machine)
    machine = network.wide_enough(machine, messages)
    before = network.errors_of(found.base, messages)
    fitted, became = fit(machine, network.KNOBS, lambda at: network.errors_of(at, messages))
    held = _held_out(messages, lambda part: network.tabulated(fitted, part), network.errors_of)
    tabulated = network.tabulated(fitted, messages)
    stage = Stage(
        name="collective", keys=tuple(one.key for one in messages), before=before, after=network.errors_of(tabulated, messages),
        held_out=held, fitted=became,
    )  # fmt: skip
    return replace(found, machine=tabulated, stages=(*found.stages, stage))


def _power(found: Calibrated, records: Sequence[Record]) -> Calibrated:
    idle, loads = power.idle_w(records), power.loads_of(records)
    counted = [step for step in steps.steps_of(records) if step.joules]
    if idle is None and not counted:
        return replace(found, notes=(*found.notes, "no power was measured: energies are those of the base"))
    machine = found.machine if idle is None else found.machine.set({"accelerator.power.idle_w": idle})
    if not loads and not counted:
        return replace(found, machine=machine)

    def errors_of(at: Machine) -> Vector:
        return np.concatenate([power.errors_of(at, loads), power.step_errors_of(at, counted)])

    fitted, became = fit(machine, power.knobs_of(machine), errors_of)
    keys = (*(one.key for one in loads), *(one.key for one in counted))
    stage = Stage(
        name="power", keys=keys, before=errors_of(found.base), after=errors_of(fitted),
        held_out=np.full(len(keys), np.nan), fitted=became,
    )  # fmt: skip
    return replace(found, machine=fitted, stages=(*found.stages, stage))


def _steps(found: Calibrated, measured: Sequence[Step]) -> Calibrated:
    if not measured:
        return found
    machine, knobs = found.machine, steps.knobs_for(len(measured))
    fitted, became = fit(machine, knobs, lambda at: steps.errors_of(at, measured))

    def refitted(part: Sequence[Step]) -> Machine:
        return refit(machine, fitted, became, knobs, lambda at: steps.errors_of(at, part))

    held = _held_out(measured, refitted, steps.errors_of) if len(measured) >= 2 * FOLDS else np.full(len(measured), np.nan)
    stage = Stage(
        name="step", keys=tuple(step.key for step in measured), before=steps.errors_of(found.base, measured),
        after=steps.errors_of(fitted, measured), held_out=held, fitted=became,
    )  # fmt: skip
    return replace(found, machine=fitted, stages=(*found.stages, stage))


def _held_out(
    items: Sequence[Item], made: Callable[[Sequence[Item]], Machine], errors: Callable[[Machine, Sequence[Item]], Vector]
) -> Vector:
    """Return the error of each item on a machine that was made without its fold."""
    result = np.full(len(items), np.nan)
    if len(items) < FOLDS:
        return result
    for fold in range(FOLDS):
        out = [index for index in range(len(items)) if index % FOLDS == fold]
        machine = made([item for index, item in enumerate(items) if index % FOLDS != fold])
        result[out] = errors(machine, [items[index] for index in out])
    return result
