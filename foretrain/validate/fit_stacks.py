"""Fits the rates of software profiles to the classic and image runs, robustly, with priors, and cross-validates them.

One constant set per software profile: how fast its matrix products, memory-bound kernels and collectives run relative to the curves of
the accelerator; and one for each accelerator that no language-model run calibrates: the sustained rate of its units. No constant belongs
to a row, a source or a model. Every run is simulated once; a rate divides the seconds of its class of the breakdown, which is exact where
the device is what is waited for, and is checked by simulating again with the fitted constants. All are fitted at once. The logarithm of a
constant over the one held has a normal prior; log(predicted / measured) has a soft-L1 loss; every pair of model and accelerator weighs
the same. Cross-validation leaves out groups of models in turn.

    python -m foretrain.validate.fit_stacks [--out reports/fit-stacks]
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
ACCELERATOR_WIDTH = 0.2
CALIBRATED = ("a100-sxm", "h100-sxm", "h200", "h800", "b200", "b300", "gb200", "v100")
"""Accelerators whose rates come from language-model runs and microbenchmarks, or from next to no runs here, and stay."""
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
    units: str
    """fp32 or matrix: the units that its products run on."""
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
        profile=job.software.key, model=job.model.key, accelerator=job.cluster.accelerator.key,
        units=_units_of(job), parts=parts, rest_s=step_time_s(job, played) - sum(parts), measured_s=seconds,
        held=tuple(getattr(job.software, field) for field in FIELDS),
    )  # fmt: skip


def _units_of(job: Job) -> str:
    peak = job.cluster.accelerator.peak_flop_per_s
    return "fp32" if peak[job.recipe.precision] <= peak["fp32"] else "matrix"


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


class Problem:
    """Cases of all profiles with the constants that they share: three a profile, then one an accelerator that is not calibrated yet."""

    def __init__(self, found: Sequence[Case]) -> None:
        self.cases = list(found)
        self.profiles = sorted({case.profile for case in found})
        self.accelerators = sorted({_units(case) for case in found if not case.accelerator.startswith(CALIBRATED)})
        self._parts = np.array([case.parts for case in found])
        self._rest = np.array([case.rest_s for case in found])
        self._measured = np.log([case.measured_s for case in found])
        self._of_profile = np.array([self.profiles.index(case.profile) for case in found])
        spare = len(self.accelerators)
        places = {name: index for index, name in enumerate(self.accelerators)}
        self._of_accelerator = np.array([places.get(_units(case), spare) for case in found])
        self._weights = weights_of(found)
        self._widths = np.array([*WIDTHS * len(self.profiles), *[ACCELERATOR_WIDTH] * spare])

    def errors(self, logs: Vector) -> Vector:
        """Return log(predicted / measured) with every constant at its factor."""
        cut = len(FIELDS) * len(self.profiles)
        rates = np.exp(logs[:cut]).reshape(-1, len(FIELDS))[self._of_profile]
        rates[:, 0] *= np.exp(np.append(logs[cut:], 0.0))[self._of_accelerator]
        return np.asarray(np.log((self._parts / rates).sum(axis=1) + self._rest) - self._measured)

    def fit(self, inside: Vector) -> Vector:
        """Return the logarithms of the factors that fit the cases `inside` best."""

        def residuals(logs: Vector) -> Vector:
            scaled = self.errors(logs) / LOSS_SCALE
            robust = np.sign(scaled) * np.sqrt(2 * (np.sqrt(1 + scaled**2) - 1)) * self._weights * inside
            return np.concatenate([robust, logs / self._widths * PRIOR_WEIGHT])

        return np.asarray(least_squares(residuals, np.zeros(len(self._widths))).x)

    def held_out(self) -> Vector:
        """Return the error of every case under constants that were fitted without its model."""
        models = sorted({case.model for case in self.cases})
        of_model = np.array([models.index(case.model) % FOLDS for case in self.cases])
        result = np.zeros(len(self.cases))
        for fold in range(FOLDS):
            out = of_model == fold
            result[out] = self.errors(self.fit(np.where(out, 0.0, 1.0)))[out]
        return result


def _units(case: Case) -> str:
    return f"{case.accelerator} {case.units}"


def weights_of(group: Sequence[Case]) -> Vector:
    """Return weights under which every model on an accelerator in a profile counts the same."""
    counts: dict[tuple[str, ...], int] = defaultdict(int)
    for case in group:
        counts[case.profile, case.model, case.accelerator] += 1
    return np.array([counts[case.profile, case.model, case.accelerator] ** -0.25 for case in group])


def report(found: Vector) -> dict[str, float]:
    """Return median and mean absolute error and bias in percent."""
    relative = 100.0 * np.expm1(found)
    return {
        "n": int(relative.size), "median_abs_pct": round(float(np.median(np.abs(relative))), 1),
        "mean_abs_pct": round(float(np.abs(relative).mean()), 1), "bias_pct": round(float(np.median(relative)), 1),
    }  # fmt: skip


def summary(problem: Problem) -> dict[str, Any]:
    """Return the fitted constants and the errors of every profile as it is, fitted, and with models left out."""
    everything = np.ones(len(problem.cases))
    logs = problem.fit(everything)
    stages = {"as held": problem.errors(np.zeros(len(logs))), "fitted": problem.errors(logs), "models left out": problem.held_out()}
    cut = len(FIELDS) * len(problem.profiles)
    factors = np.exp(logs[:cut]).reshape(-1, len(FIELDS))
    profiles = {}
    for index, name in enumerate(problem.profiles):
        own = np.array([case.profile == name for case in problem.cases])
        held = next(case.held for case in problem.cases if case.profile == name)
        constants = dict(zip(FIELDS, np.round(np.array(held) * factors[index], 3).tolist(), strict=True))
        profiles[name] = {"constants": constants} | {stage: report(found[own]) for stage, found in stages.items()}
    return {
        "profiles": profiles,
        "accelerators": dict(zip(problem.accelerators, np.round(np.exp(logs[cut:]), 3).tolist(), strict=True)),
        "all": {stage: report(found) for stage, found in stages.items()},
    }  # fmt: skip


def write(found: dict[str, Any], stem: Path) -> None:
    """Write the summary of every profile as `stem`.json and .md."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    head = "| profile | runs | " + " | ".join(FIELDS) + " | as held | fitted | models left out |"
    lines = [
        "# Rates of software profiles fitted to classic and image runs", "",
        "Written by `python -m foretrain.validate.fit_stacks`; not edited by hand. Errors are medians of the absolute error in %.",
        "", head, "|" + "---|" * (head.count("|") - 1), *_rows(found["profiles"].items()), "",
        "Factor on the sustained rate of accelerators: "
        + ", ".join(f"{name} {value}" for name, value in found["accelerators"].items()), "",
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
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="path of the report without its suffix")
    arguments = parser.parse_args()
    found = summary(Problem([case for group in cases(arguments.workers).values() for case in group]))
    print(json.dumps(found, indent=1))  # noqa: T201 - a report
    if arguments.out is not None:
        write(found, arguments.out)


if __name__ == "__main__":
    main()
