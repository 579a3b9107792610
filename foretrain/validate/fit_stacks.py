"""Fits the rates of software profiles to the classic and image runs, robustly, with priors, and cross-validates them.

One constant set per software profile: how fast its matrix products, memory-bound kernels and collectives run relative to the curves of
the accelerator. No constant belongs to a row, a source or a model. Every run is simulated once; a rate divides the seconds of its class
of the breakdown, which is exact where the device is what is waited for, and is checked by simulating again with the fitted constants.
The logarithm of a constant over the profile's own has a normal prior; log(predicted / measured) has a soft-L1 loss; every pair of model
and accelerator weighs the same. Cross-validation leaves out groups of models in turn.

    python -m foretrain.validate.fit_stacks [PROFILE ...] [--out reports/fit-stacks]
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
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
from foretrain.validate.answers import step_time_s
from foretrain.validate.cells import Row
from foretrain.validate.llm_rows import Job, Library
from foretrain.validate.runs_file import bundled_runs
from foretrain.validate.step_kinds import STEP_KINDS

Vector = np.ndarray[Any, np.dtype[np.float64]]

FILES = ("classic_runs.csv", "image_model_runs.csv")
FIELDS = ("matmul_scale", "stream_scale", "collective_scale")
CLASSES = (("math",), ("memory", "optimizer"), ("data_parallel",))
"""Classes of the breakdown whose seconds each constant divides."""
WIDTHS = (0.3, 0.3, 0.4)
"""Widths of the priors, relative."""
LOSS_SCALE = 0.1
PRIOR_WEIGHT = 1.0
FOLDS = 4
"""Most groups of models that are left out in turn."""
CHUNK = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run: seconds by constant, seconds that no constant changes, seconds measured; `held` are the constants of its profile."""

    profile: str
    model: str
    accelerator: str
    parts: tuple[float, ...]
    rest_s: float
    measured_s: float
    held: tuple[float, ...]


def case_of(kind: str, row: Row) -> Case | None:
    """Return the case of a row, None where it cannot be simulated or was not measured."""
    library = Library(cluster=lambda name: load_cluster(f"{name}:1"), software=load_software)
    job, seconds = STEP_KINDS[kind].job(row, library), STEP_KINDS[kind].measured(row).step_time_s
    if not isinstance(job, Job) or seconds is None:
        return None
    try:
        played = simulate(job.model, job.cluster, job.plan, job.recipe, software=job.software)
    except ForetrainError:
        return None
    counted = [tuple(name for name in names if name not in job.without) for names in CLASSES]
    parts = tuple(job.steps * sum(played.breakdown[name] for name in names) for names in counted)
    return Case(
        profile=job.software.key, model=job.model.key, accelerator=job.cluster.accelerator.key, parts=parts,
        rest_s=step_time_s(job, played) - sum(parts), measured_s=seconds,
        held=tuple(getattr(job.software, field) for field in FIELDS),
    )  # fmt: skip


def _cases(task: tuple[str, list[Row]]) -> list[Case]:
    kind, rows = task
    return [case for row in rows if (case := case_of(kind, row)) is not None]


def cases(workers: int) -> dict[str, list[Case]]:
    """Return the runs of the bundled files by software profile."""
    tasks: list[tuple[str, list[Row]]] = []
    for file in FILES:
        runs = bundled_runs(file)
        rows: list[Row] = [line.cells for line in runs.lines]
        tasks += [(runs.kind, rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]
    found: dict[str, list[Case]] = defaultdict(list)
    with ProcessPoolExecutor(workers) as pool:
        for chunk in pool.map(_cases, tasks):
            for case in chunk:
                found[case.profile].append(case)
    return dict(found)


def errors(group: Sequence[Case], logs: Vector) -> Vector:
    """Return log(predicted / measured) with every constant at its factor."""
    parts = np.array([case.parts for case in group])
    rest = np.array([case.rest_s for case in group])
    return np.asarray(np.log((parts / np.exp(logs)).sum(axis=1) + rest) - np.log([case.measured_s for case in group]))


def fit(group: Sequence[Case]) -> Vector:
    """Return the logarithms of the factors on the constants that fit a group best."""
    weights = weights_of(group)

    def residuals(logs: Vector) -> Vector:
        scaled = errors(group, logs) / LOSS_SCALE
        robust = np.sign(scaled) * np.sqrt(2 * (np.sqrt(1 + scaled**2) - 1)) * weights
        return np.concatenate([robust, logs / np.array(WIDTHS) * PRIOR_WEIGHT])

    return np.asarray(least_squares(residuals, np.zeros(len(FIELDS))).x)


def weights_of(group: Sequence[Case]) -> Vector:
    """Return weights under which every pair of model and accelerator counts the same."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for case in group:
        counts[case.model, case.accelerator] += 1
    return np.array([counts[case.model, case.accelerator] ** -0.5 for case in group])


def held_out(group: Sequence[Case]) -> Vector:
    """Return the error of every case under constants that were fitted without its model."""
    models = sorted({case.model for case in group})
    result = errors(group, np.zeros(len(FIELDS)))
    for fold in (models[start::FOLDS] for start in range(min(FOLDS, len(models)))):
        inside = [case for case in group if case.model not in fold]
        out = [index for index, case in enumerate(group) if case.model in fold]
        result[out] = errors([group[index] for index in out], fit(inside) if inside else np.zeros(len(FIELDS)))
    return result


def report(found: Vector) -> dict[str, float]:
    """Return median and mean absolute error and bias in percent."""
    relative = 100.0 * np.expm1(found)
    return {
        "n": int(relative.size), "median_abs_pct": round(float(np.median(np.abs(relative))), 1),
        "mean_abs_pct": round(float(np.abs(relative).mean()), 1), "bias_pct": round(float(np.median(relative)), 1),
    }  # fmt: skip


def summary(group: Sequence[Case]) -> dict[str, Any]:
    """Return the fitted constants of a profile and its errors as it is, fitted, and with models left out."""
    logs = fit(group)
    constants = dict(zip(FIELDS, np.round(np.array(group[0].held) * np.exp(logs), 3).tolist(), strict=True))
    return {
        "constants": constants, "as held": report(errors(group, np.zeros(len(FIELDS)))), "fitted": report(errors(group, logs)),
        "models left out": report(held_out(group)),
    }  # fmt: skip


def write(found: dict[str, Any], stem: Path) -> None:
    """Write the summary of every profile as `stem`.json and .md."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    head = "| profile | runs | " + " | ".join(FIELDS) + " | as held | fitted | models left out |"
    lines = [
        "# Rates of software profiles fitted to classic and image runs", "",
        "Written by `python -m foretrain.validate.fit_stacks`; not edited by hand. Errors are medians of |predicted / measured - 1| in %.",
        "", head, "|" + "---|" * (head.count("|") - 1), *_rows(found.items()), "",
    ]  # fmt: skip
    stem.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


def _rows(found: Iterable[tuple[str, Any]]) -> list[str]:
    stages = ("as held", "fitted", "models left out")
    return [
        f"| {name} | {one['as held']['n']} | " + " | ".join(str(one["constants"][field]) for field in FIELDS)
        + " | " + " | ".join(str(one[stage]["median_abs_pct"]) for stage in stages) + " |"
        for name, one in found
    ]  # fmt: skip


def main() -> None:
    """Fit, cross-validate, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profiles", nargs="*", help="software profiles; all by default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="path of the report without its suffix")
    arguments = parser.parse_args()
    groups = cases(arguments.workers)
    found = {name: summary(group) for name, group in sorted(groups.items()) if not arguments.profiles or name in arguments.profiles}
    for name, one in found.items():
        print(name, json.dumps(one))  # noqa: T201 - a report
    if arguments.out is not None:
        write(found, arguments.out)


if __name__ == "__main__":
    main()
