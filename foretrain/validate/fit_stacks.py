"""Fits the rates and launch costs of software profiles to the classic and image runs, robustly, with priors, and cross-validates them.

One constant set per software profile: rates of its products and streams, host time of a launch. No constant belongs to a row, a source
or a model. The logarithm of a constant over its centre has a normal prior; log(predicted / measured) has a soft-L1 loss; every pair
of model and accelerator weighs the same. Cross-validation leaves out each model in turn.

    python -m foretrain.validate.fit_stacks [PROFILE ...] [--out reports/fit-stacks]
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from foretrain.errors import ForetrainError
from foretrain.hardware.load import load_cluster
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.software.profile import Software
from foretrain.validate.answers import step_time_s
from foretrain.validate.llm_rows import Job, Library
from foretrain.validate.runs_file import bundled_runs
from foretrain.validate.step_kinds import STEP_KINDS

Vector = np.ndarray[Any, np.dtype[np.float64]]

FILES = ("classic_runs.csv", "image_model_runs.csv")
FIELDS = ("matmul_scale", "stream_scale", "launch_s", "collective_scale")
WIDTHS = (0.35, 0.35, 0.5, 0.5)
"""Widths of the priors, relative."""
LOSS_SCALE = 0.1
PRIOR_WEIGHT = 0.5
STEP = 0.05
MOST = 60
"""Runs of a profile that are fitted: every n-th of them where there are more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run."""

    profile: str
    model: str
    accelerator: str
    job: Job
    measured_s: float


def cases(profiles: Sequence[str]) -> dict[str, list[Case]]:
    """Return the runs of the bundled files by software profile, thinned."""
    library = Library(cluster=lambda name: load_cluster(f"{name}:1"), software=load_software)
    found: dict[str, list[Case]] = defaultdict(list)
    for file in FILES:
        runs = bundled_runs(file)
        kind = STEP_KINDS[runs.kind]
        for line in runs.lines:
            job, seconds = kind.job(line.cells, library), kind.measured(line.cells).step_time_s
            if isinstance(job, Job) and seconds is not None and (not profiles or job.software.key in profiles):
                case = Case(profile=job.software.key, model=job.model.key, accelerator=job.cluster.accelerator.key, job=job, measured_s=seconds)
                found[case.profile].append(case)
    return {name: group[:: max(1, round(len(group) / MOST))] for name, group in found.items()}


def changed(software: Software, logs: Sequence[float]) -> Software:
    """Return the profile with every constant at its factor."""
    matmul, stream, launch, collective = (math.exp(value) for value in logs)
    host = replace(software.host, launch_s=software.host.launch_s * launch)
    return replace(
        software, matmul_scale=software.matmul_scale * matmul, stream_scale=software.stream_scale * stream, host=host,
        collective_scale=software.collective_scale * collective,
    )  # fmt: skip


_HELD: list[Case] = []
"""Held by each worker process, so that a task is a few numbers."""


def _hold(found: list[Case]) -> None:
    _HELD[:] = found


def _error(task: tuple[int, tuple[float, ...]]) -> float:
    index, logs = task
    case = _HELD[index]
    job = case.job
    try:
        played = simulate(job.model, job.cluster, job.plan, job.recipe, software=changed(job.software, logs))
    except ForetrainError:
        return math.nan
    return math.log(step_time_s(job, played) / case.measured_s)


@dataclass(frozen=True, slots=True)
class Fit:
    """Robust least squares over some cases of one profile."""

    pool: ProcessPoolExecutor
    indices: tuple[int, ...]
    weights: Vector

    def errors(self, logs: Sequence[float], chosen: Sequence[int]) -> Vector:
        """Return log(predicted / measured) of the chosen cases."""
        at = tuple(float(value) for value in logs)
        return np.array(list(self.pool.map(_error, [(self.indices[i], at) for i in chosen], chunksize=4)))

    def run(self, chosen: Sequence[int]) -> Vector:
        """Return the logarithms of the factors that fit the chosen cases best."""

        def residuals(logs: Vector) -> Vector:
            errors = np.nan_to_num(self.errors(logs, chosen)) / LOSS_SCALE
            robust = np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2) - 1)) * self.weights[list(chosen)]
            return np.concatenate([robust, logs / np.array(WIDTHS) * PRIOR_WEIGHT])

        def slopes(logs: Vector) -> Vector:
            base = residuals(logs)
            return np.stack([(residuals(logs + step) - base) / STEP for step in np.eye(len(FIELDS)) * STEP], axis=1)

        found = least_squares(residuals, np.zeros(len(FIELDS)), jac=slopes, max_nfev=8, xtol=5e-3, ftol=5e-3)
        return np.asarray(found.x)


def weights_of(group: Sequence[Case]) -> Vector:
    """Return weights under which every pair of model and accelerator counts the same."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for case in group:
        counts[case.model, case.accelerator] += 1
    return np.array([counts[case.model, case.accelerator] ** -0.5 for case in group])


def report(errors: Vector) -> dict[str, float]:
    """Return median and mean absolute error and bias in percent."""
    relative = 100.0 * np.expm1(errors[~np.isnan(errors)])
    if not relative.size:
        return {"n": 0}
    return {
        "n": int(relative.size), "median_abs_pct": round(float(np.median(np.abs(relative))), 1),
        "mean_abs_pct": round(float(np.abs(relative).mean()), 1), "bias_pct": round(float(np.median(relative)), 1),
    }  # fmt: skip


def fitted(fit: Fit, group: Sequence[Case], *, validate: bool) -> dict[str, Any]:
    """Return the constants of one profile and its errors before, after and with each model left out."""
    everything = range(len(group))
    logs = fit.run(everything)
    software = changed(group[0].job.software, [0.0 if group[0].job.software.host.launch_s == 0 and n == "launch_s" else v
                                               for n, v in zip(FIELDS, logs, strict=True)])  # fmt: skip
    result: dict[str, Any] = {
        "constants": {"matmul_scale": round(software.matmul_scale, 3), "stream_scale": round(software.stream_scale, 3),
                      "launch_us": round(software.host.launch_s * 1e6, 2), "collective_scale": round(software.collective_scale, 3)},
        "before": report(fit.errors([0.0] * len(FIELDS), everything)),
        "after": report(fit.errors(logs, everything)),
    }  # fmt: skip
    models = sorted({case.model for case in group})
    if validate and len(models) > 1:
        held = np.full(len(group), math.nan)
        folds = models if len(models) <= FOLDS else [models[n::FOLDS] for n in range(FOLDS)]
        for fold in folds:
            out = [i for i in everything if group[i].model in fold]
            held[out] = fit.errors(fit.run([i for i in everything if i not in out]), out)
        result["models left out"] = report(held)
    return result


FOLDS = 4
"""Most groups of models that are left out in turn."""


def main() -> None:
    """Fit, cross-validate, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profiles", nargs="*", help="software profiles; all by default")
    parser.add_argument("--no-validation", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="path of the report without its suffix")
    arguments = parser.parse_args()
    groups = cases(arguments.profiles)
    flat = [case for group in groups.values() for case in group]
    found: dict[str, Any] = {}
    with ProcessPoolExecutor(arguments.workers, initializer=_hold, initargs=(flat,)) as pool:
        start = 0
        for name, group in groups.items():
            fit = Fit(pool, tuple(range(start, start + len(group))), weights_of(group))
            start += len(group)
            found[name] = fitted(fit, group, validate=not arguments.no_validation)
            print(name, json.dumps(found[name]), flush=True)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
