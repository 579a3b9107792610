"""The user's own runs as steps that a machine can be fitted to: rows of a file of runs, all on the machine that is calibrated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from foretrain.errors import ForetrainError, UsageError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.sim.prediction import Prediction
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.calibration.steps import Step
from foretrain.validate.llm_rows import Job, Library, Refusal
from foretrain.validate.runs_file import Line, read_runs
from foretrain.validate.step_kinds import STEP_KINDS


def steps_in(path: Path, machine: Machine) -> tuple[list[Step], list[str]]:
    """Return the runs of a file as steps of a machine, and why others are none.

    Whatever accelerator and framework they name, they are that machine's.

    Raises:
        UsageError: where the file holds no step times, or not one of its rows can be simulated, with the first reason.
    """
    runs = read_runs(path)
    if runs.kind not in STEP_KINDS:
        raise UsageError(f"{path} holds {runs.kind}, which are no training steps; give a file of {', '.join(STEP_KINDS)}")
    library = Library(cluster=lambda name: load_cluster(f"{name}:1"), software=load_software)
    found, reasons = list[Step](), list[str]()
    for row, line in enumerate(runs.lines):
        step = _step(line, runs.kind, machine, library)
        if isinstance(step, Step):
            found.append(step)
        else:
            reasons.append(f"row {row}: {step}")
    if not found:
        raise UsageError(f"{path} has no run that can be simulated; the first says: {reasons[0] if reasons else 'there is none'}")
    return found, reasons


def _step(line: Line, kind: str, machine: Machine, library: Library) -> Step | str:
    if line.fault:
        return line.fault
    try:
        job = STEP_KINDS[kind].job(line.cells, library)
        seconds = STEP_KINDS[kind].measured(line.cells).step_time_s
    except ForetrainError as error:
        return str(error)
    if isinstance(job, Refusal):
        return job.reason
    if seconds is None:
        return "it measured no step time"
    labels = STEP_KINDS[kind].labels(line.cells)

    def predicted(at: Machine) -> Prediction:
        return simulate(job.model, _as_many(at, job), job.plan, job.recipe, software=at.software)

    return Step(key=labels.id, seconds=seconds / job.steps, predict=predicted, group=labels.config_key)


def _as_many(machine: Machine, job: Job) -> Cluster:
    """Return the machine's cluster with as many nodes as the run takes."""
    cluster = machine.cluster
    nodes = -(-job.plan.ranks // cluster.node.accelerators)
    return cluster if nodes <= cluster.nodes else replace(cluster, nodes=nodes)
