"""Fits accelerator and software constants to the published development runs, robustly, with priors, and cross-validates them.

One constant set per accelerator and software profile: no constant belongs to a row, a source or a model. Each constant is fitted as
a factor on what the profile holds (its logarithm has a normal prior around 0), on log(predicted / measured) with a soft-L1 loss,
every source weighted by the square root of its size. Prints factor, prior, and what five-fold cross-validation leaves.

    python -m foretrain.validate.fit_published [--folds 5]
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from foretrain.errors import ForetrainError
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.software.profile import Software
from foretrain.validate.llm_rows import Job, Library, Refusal, job_of, measured
from foretrain.validate.runs_file import read_runs

LOSS_SCALE = 0.08
"""Residuals beyond this share count linearly, so that a row with a quirk of its own does not steer a constant."""
STEP = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """One constant: where it sits (key prefix of an accelerator or names of softwares), which field, and the prior's width."""

    owner: str
    field: str
    prior: float


CONSTANTS = (
    Constant(owner="a100", field="sustained", prior=0.06),
    Constant(owner="h100-sxm", field="sustained", prior=0.15),
    Constant(owner="h100-sxm-96gb", field="sustained", prior=0.10),
    Constant(owner="a100", field="flash1", prior=0.2),
    Constant(owner="a100", field="flash2", prior=0.15),
    Constant(owner="h100", field="flash1", prior=0.4),
    Constant(owner="h100", field="flash2", prior=0.15),
    Constant(owner="tpu-v4", field="sustained", prior=0.1),
    Constant(owner="tpu-v5e", field="sustained", prior=0.1),
    Constant(owner="tpu-v5p", field="sustained", prior=0.1),
    Constant(owner="tpu", field="xla", prior=0.2),
    Constant(owner="megatron-lm-2021", field="matmul_scale", prior=0.06),
    Constant(owner="megatron-lm-2021", field="stream_scale", prior=0.15),
    Constant(owner="megatron-deepspeed", field="matmul_scale", prior=0.06),
    Constant(owner="megatron-deepspeed", field="stream_scale", prior=0.15),
    Constant(owner="megatron-deepspeed", field="collective_scale", prior=0.25),
    Constant(owner="megatron-deepspeed megatron-deepspeed-blocking", field="launch_s", prior=0.5),
    Constant(owner="megatron-deepspeed megatron-deepspeed-blocking", field="collective_s", prior=0.5),
    Constant(owner="megatron-deepspeed megatron-deepspeed-blocking", field="step_s", prior=0.7),
    Constant(owner="megatron-deepspeed megatron-deepspeed-blocking", field="microbatch_s", prior=0.7),
    Constant(owner="megatron-deepspeed-blocking", field="matmul_scale", prior=0.06),
    Constant(owner="megatron-deepspeed-blocking", field="collective_scale", prior=0.25),
    Constant(owner="composer-fsdp", field="matmul_scale", prior=0.06),
    Constant(owner="composer-fsdp", field="stream_scale", prior=0.3),
    Constant(owner="composer-fsdp", field="collective_scale", prior=0.4),
    Constant(owner="internevo", field="matmul_scale", prior=0.06),
    Constant(owner="internevo", field="stream_scale", prior=0.4),
    Constant(owner="internevo", field="collective_scale", prior=0.5),
    Constant(owner="pytorch-fsdp pytorch-fsdp-compiled", field="matmul_scale", prior=0.06),
    Constant(owner="pytorch-fsdp", field="stream_scale", prior=0.3),
    Constant(owner="torchtitan torchtitan-compiled", field="matmul_scale", prior=0.06),
    Constant(owner="torchtitan", field="stream_scale", prior=0.3),
    Constant(owner="flash-attn-repo", field="matmul_scale", prior=0.06),
    Constant(owner="deepspeed-zero3", field="collective_scale", prior=0.5),
    Constant(owner="xla-gpu", field="matmul_scale", prior=0.06),
    Constant(owner="xla-gpu", field="collective_scale", prior=0.5),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration of the development runs."""

    source: str
    job: Job
    measured_s: float
    weight: float


def cases(every: dict[str, int]) -> list[Case]:
    """Return one case per configuration, thinned by source, weighted so that a source counts by the root of its size."""
    library = Library(cluster=lambda name: load_cluster(f"{name}:1"), software=load_software)
    runs: dict[str, list[float]] = defaultdict(list)
    rows = {}
    for line in read_runs(None).lines:
        row = line.cells
        if line.fault or row["complete"] != "y" or "before_numa" in row["execution"] or row["source_key"] == "bigscience-v100":
            continue
        if (seconds := measured(row).step_time_s) is not None and row["subset"] in ("core", "bulk_grid"):
            runs[row["config_key"]].append(seconds)
            rows.setdefault(row["config_key"], row)
    seen: dict[str, int] = defaultdict(int)
    found: list[tuple[str, Job, float]] = []
    for key, row in rows.items():
        source = row["source_key"] if row["subset"] == "core" else "bulk"
        seen[source] += 1
        job = job_of(row, library) if seen[source] % every.get(source, 1) == 0 else Refusal("thinned")
        if isinstance(job, Job):
            found.append((source, job, statistics.median(runs[key])))
    size = {source: sum(1 for other, _, _ in found if other == source) for source, _, _ in found}
    return [Case(source, job, seconds, 1.0 / math.sqrt(math.sqrt(size[source]))) for source, job, seconds in found]


def changed(job: Job, factors: dict[tuple[str, str], float]) -> Job:
    """Return the job with every constant that applies to it multiplied by its factor."""
    software, accelerator = job.software, job.cluster.accelerator
    for (owner, field), factor in factors.items():
        if software.key in owner.split():
            software = _software(software, field, factor)
        elif accelerator.key.startswith(owner) and not (owner == "h100-sxm" and accelerator.key != owner):
            accelerator = _accelerator(accelerator, field, factor)
    node = replace(job.cluster.node, accelerator=accelerator)
    cluster: Cluster = replace(job.cluster, node=node)
    return replace(job, software=software, cluster=cluster)


def _software(software: Software, field: str, factor: float) -> Software:
    if field in ("launch_s", "collective_s", "step_s", "microbatch_s"):
        return replace(software, host=replace(software.host, **{field: getattr(software.host, field) * factor}))
    return replace(software, **{field: getattr(software, field) * factor})


def _accelerator(accelerator: Accelerator, field: str, factor: float) -> Accelerator:
    if field == "sustained":
        sustained = {dtype: value * factor for dtype, value in accelerator.matmul.sustained.items()}
        return replace(accelerator, matmul=replace(accelerator.matmul, sustained=sustained))
    if field not in accelerator.attention:
        return accelerator
    curve = accelerator.attention[field]
    scaled = replace(curve, forward=curve.forward * factor, backward=curve.backward * factor)
    return replace(accelerator, attention={**accelerator.attention, field: scaled})


_CASES: list[Case] = []


def _hold(found: list[Case]) -> None:
    _CASES[:] = found


def _error(task: tuple[int, tuple[float, ...]]) -> float:
    index, logs = task
    case = _CASES[index]
    factors = {(c.owner, c.field): math.exp(value) for c, value in zip(CONSTANTS, logs, strict=True)}
    job = changed(case.job, factors)
    try:
        return math.log(simulate(job.model, job.cluster, job.plan, job.recipe, software=job.software).step_s / case.measured_s)
    except ForetrainError:
        return float("nan")


class Fit:
    """Robust least squares over a set of cases."""

    def __init__(self, pool: ProcessPoolExecutor, found: list[Case]) -> None:
        self.pool = pool
        self.cases = found
        self._touches = [self._touched(case) for case in found]

    def _touched(self, case: Case) -> set[int]:
        return {
            index for index, constant in enumerate(CONSTANTS)
            if changed(case.job, {(constant.owner, constant.field): 1.1}) != case.job
        }

    def errors(self, logs: np.ndarray, chosen: list[int]) -> np.ndarray:
        """Return log(predicted / measured) of the chosen cases."""
        return np.array(list(self.pool.map(_error, [(index, tuple(logs)) for index in chosen], chunksize=8)))

    def run(self, chosen: list[int], start: np.ndarray | None = None) -> np.ndarray:
        """Return the logarithms of the factors that fit the chosen cases best."""
        weights = np.array([self.cases[index].weight for index in chosen])
        prior = np.array([constant.prior for constant in CONSTANTS])

        def residuals(logs: np.ndarray) -> np.ndarray:
            errors = np.nan_to_num(self.errors(logs, chosen))
            robust = np.sign(errors) * LOSS_SCALE * np.sqrt(2 * (np.sqrt(1 + (errors / LOSS_SCALE) ** 2) - 1))
            return np.concatenate([robust * weights / LOSS_SCALE, logs / prior * 0.5])

        def jacobian(logs: np.ndarray) -> np.ndarray:
            base = residuals(logs)
            result = np.zeros((len(base), len(logs)))
            for column in range(len(logs)):
                touched = [row for row, index in enumerate(chosen) if column in self._touches[index]]
                moved = logs.copy()
                moved[column] += STEP
                if touched:
                    errors = np.nan_to_num(self.errors(moved, [chosen[row] for row in touched]))
                    robust = np.sign(errors) * LOSS_SCALE * np.sqrt(2 * (np.sqrt(1 + (errors / LOSS_SCALE) ** 2) - 1))
                    result[touched, column] = (robust * weights[touched] / LOSS_SCALE - base[touched]) / STEP
                result[len(chosen) + column, column] = 0.5 / prior[column]
            return result

        begin = np.zeros(len(CONSTANTS)) if start is None else start
        return least_squares(residuals, begin, jac=jacobian, max_nfev=8, xtol=1e-3, ftol=1e-3).x


def summary(found: list[Case], errors: np.ndarray) -> str:
    """Return the mean absolute error and the bias of each source and of all."""
    lines = []
    relative = np.exp(errors) - 1
    by: dict[str, list[float]] = defaultdict(list)
    for case, value in zip(found, relative, strict=True):
        if not math.isnan(value):
            by[case.source].append(value)
    for source, values in sorted(by.items()):
        size, bias = 100 * np.mean(np.abs(values)), 100 * np.mean(values)
        lines.append(f"  {source:18s} n {len(values):4d}  mean |error| {size:5.1f} %  bias {bias:+5.1f} %")
    means = [np.mean(np.abs(values)) for values in by.values()]
    lines.append(f"  mean over sources {100 * np.mean(means):.1f} %, over cases {100 * np.nanmean(np.abs(relative)):.1f} %")
    return "\n".join(lines)


def main() -> None:
    """Fit, print, cross-validate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=0, help="cross-validate in so many folds")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    found = cases({"llm-foundry": 3, "internevo": 2, "bloom-prequel": 2, "bulk": 9, "maxtext": 2})
    with ProcessPoolExecutor(arguments.workers, initializer=_hold, initargs=(found,)) as pool:
        fit = Fit(pool, found)
        everything = list(range(len(found)))
        print("before\n" + summary(found, fit.errors(np.zeros(len(CONSTANTS)), everything)), flush=True)
        logs = fit.run(everything)
        print("after\n" + summary(found, fit.errors(logs, everything)))
        for constant, value in zip(CONSTANTS, logs, strict=True):
            print(f"  {constant.owner:40s} {constant.field:18s} x {math.exp(value):.3f}  (prior ± {constant.prior:.0%})")
        if arguments.folds:
            held = np.zeros(len(found))
            for fold in range(arguments.folds):
                kept = [index for index in everything if index % arguments.folds != fold]
                out = [index for index in everything if index % arguments.folds == fold]
                held[out] = fit.errors(fit.run(kept, logs), out)
            print(f"held out, {arguments.folds} folds\n" + summary(found, held))


if __name__ == "__main__":
    main()
