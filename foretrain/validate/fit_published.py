"""Fits accelerator and software constants to the published development runs, robustly, with priors, and cross-validates them.

One constant set per accelerator and software profile: no constant belongs to a row, a source or a model. The logarithm of a constant
over its centre has a normal prior; log(predicted / measured) has a soft-L1 loss, and every source weighs by the root of its size.
Cross-validation fits each fold from the centres, on the other folds alone.

    python -m foretrain.validate.fit_published [--folds 3] [--out reports/fit-published]
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from foretrain.errors import ForetrainError
from foretrain.hardware.load import load_cluster
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.validate.cells import Row
from foretrain.validate.fit_constants import CONSTANTS, changed, touched
from foretrain.validate.fit_report import Stage, text, write_report
from foretrain.validate.llm_rows import Job, Library, Refusal, job_of, measured
from foretrain.validate.runs_file import read_runs

Vector = np.ndarray[Any, np.dtype[np.float64]]

LOSS_SCALE = 0.08
"""Residuals beyond this share count linearly, so that a row with a quirk of its own does not steer a constant."""
STEP = 0.04
PRIOR_WEIGHT = 0.5
EVERY = {"llm-foundry": 3, "internevo": 2, "bloom-prequel": 2, "bulk": 9, "maxtext": 2}
"""Large sources are thinned to every n-th configuration."""


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration of the development runs."""

    source: str
    job: Job
    measured_s: float
    weight: float


def cases() -> list[Case]:
    """Return one case per configuration of the core and of the single-node grid, thinned by source.

    Left out: V100 runs of a shared cluster (their authors report 40 % from day to day), and runs before a node binding was mended.
    """
    library = Library(cluster=lambda name: load_cluster(f"{name}:1"), software=load_software)
    runs: dict[str, list[float]] = defaultdict(list)
    rows: dict[str, Row] = {}
    for line in read_runs(None).lines:
        row = line.cells
        if line.fault or row["complete"] != "y" or "before_numa" in row["execution"] or row["source_key"] == "bigscience-v100":
            continue
        if (seconds := measured(row).step_time_s) is not None and row["subset"] in ("core", "bulk_grid"):
            runs[row["config_key"]].append(seconds)
            rows.setdefault(row["config_key"], row)
    seen: dict[str, int] = defaultdict(int)
    found: list[tuple[str, Job, float]] = []
    for key, first in rows.items():
        source = first["source_key"] if first["subset"] == "core" else "bulk"
        seen[source] += 1
        job = job_of(first, library) if seen[source] % EVERY.get(source, 1) == 0 else Refusal("thinned")
        if isinstance(job, Job):
            found.append((source, job, statistics.median(runs[key])))
    size = {source: sum(1 for other, _, _ in found if other == source) for source, _, _ in found}
    return [Case(source, job, seconds, size[source] ** -0.25) for source, job, seconds in found]


_CASES: list[Case] = []
"""Held by each worker process, so that a task is two small numbers."""


def _hold(found: list[Case]) -> None:
    _CASES[:] = found


def _error(task: tuple[int, tuple[float, ...] | None]) -> float:
    index, logs = task
    case = _CASES[index]
    job = case.job if logs is None else changed(case.job, logs)
    try:
        return math.log(simulate(job.model, job.cluster, job.plan, job.recipe, software=job.software).step_s / case.measured_s)
    except ForetrainError:
        return float("nan")


class Fit:
    """Robust least squares over chosen cases."""

    def __init__(self, pool: ProcessPoolExecutor, found: list[Case]) -> None:
        self.pool = pool
        self.cases = found
        self.touches = [touched(case.job) for case in found]

    def errors(self, logs: Vector | None, chosen: Sequence[int]) -> Vector:
        """Return log(predicted / measured) of the chosen cases, with the library's own constants where `logs` is None."""
        at = None if logs is None else tuple(float(value) for value in logs)
        return np.array(list(self.pool.map(_error, [(index, at) for index in chosen], chunksize=8)))

    def run(self, chosen: Sequence[int]) -> Vector:
        """Return the logarithms of the factors on the centres that fit the chosen cases best."""
        start = np.zeros(len(CONSTANTS))
        found = least_squares(
            lambda logs: self._residuals(logs, chosen), start, jac=lambda logs: self._jacobian(logs, chosen),
            max_nfev=10, xtol=1e-3, ftol=1e-3,
        )  # fmt: skip
        return np.asarray(found.x)

    def _residuals(self, logs: Vector, chosen: Sequence[int]) -> Vector:
        return np.concatenate([self._robust(self.errors(logs, chosen), chosen), logs / _WIDTHS * PRIOR_WEIGHT])

    def _robust(self, errors: Vector, chosen: Sequence[int]) -> Vector:
        """Return residuals whose squares are the soft-L1 loss, weighted by source."""
        errors = np.nan_to_num(errors) / LOSS_SCALE
        weights = np.array([self.cases[index].weight for index in chosen])
        return np.asarray(np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2) - 1)) * weights)

    def _jacobian(self, logs: Vector, chosen: Sequence[int]) -> Vector:
        base = self._residuals(logs, chosen)
        result = np.zeros((len(base), len(logs)))
        for column in range(len(logs)):
            rows = [row for row, index in enumerate(chosen) if column in self.touches[index]]
            result[len(chosen) + column, column] = PRIOR_WEIGHT / _WIDTHS[column]
            if rows:
                moved = logs.copy()
                moved[column] += STEP
                picked = [chosen[row] for row in rows]
                result[rows, column] = (self._robust(self.errors(moved, picked), picked) - base[rows]) / STEP
        return result


_WIDTHS = np.array([constant.width for constant in CONSTANTS])


def held_out(fit: Fit, folds: int) -> Vector:
    """Return the error of every case under constants fitted to the other folds."""
    everything = range(len(fit.cases))
    result = np.zeros(len(fit.cases))
    for fold in range(folds):
        out = [index for index in everything if index % folds == fold]
        result[out] = fit.errors(fit.run([index for index in everything if index % folds != fold]), out)
    return result


def main() -> None:
    """Fit, cross-validate, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=3, help="cross-validate in so many folds; 0 to leave it out")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="path of the report without its suffix")
    arguments = parser.parse_args()
    found = cases()
    sources = [case.source for case in found]
    with ProcessPoolExecutor(arguments.workers, initializer=_hold, initargs=(found,)) as pool:
        fit = Fit(pool, found)
        everything = range(len(found))
        logs = fit.run(everything)
        stages = [
            Stage("from the centres", sources, fit.errors(np.zeros(len(CONSTANTS)), everything)),
            Stage("fitted", sources, fit.errors(logs, everything)),
            Stage("as the library holds them", sources, fit.errors(None, everything)),
        ]
        if arguments.folds:
            stages.insert(2, Stage(f"held out, {arguments.folds} folds", sources, held_out(fit, arguments.folds)))
    print(text(stages, logs))
    if arguments.out is not None:
        write_report(arguments.out, stages, logs)


if __name__ == "__main__":
    main()
