"""Speed of the simulator itself, as a table: medians of five, each beside its target.

Times are wall-clock, after one warm-up, in this process unless the row says otherwise: `python benchmarks/bench.py`.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from foretrain.hardware.load import load_cluster
from foretrain.models.load import load_model
from foretrain.sim.engine import Engine
from foretrain.sim.lower import Lowered, lower
from foretrain.sim.maxplus import evaluate
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.interleaved import InterleavedOneForwardOneBackward
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software

REPEATS = 5
TRACE = Path(__file__).with_name("trace.py")
SOFTWARE = load_software("megatron-lm")
COMMAND = "simulate --model gpt3-175b --cluster dgx-a100-80gb:8 --tp 8 --pp 8 --global-batch 64 --recompute full --json"
SMALL = ("gpt3-175b", 8, Plan(tp=8, pp=8), 64)
LARGE = ("mt-nlg-530b", 35, Plan(tp=8, pp=35, vpp=3, schedule=InterleavedOneForwardOneBackward()), 2240)


class Row(NamedTuple):
    """One line of the table; `target` is the most (or, for a rate, the least) that was promised."""

    what: str
    values: list[float]
    target: float
    unit: str
    least: bool = False

    def __str__(self) -> str:
        """Return the line: median, spread, target and whether it holds."""
        median = statistics.median(self.values)
        holds = median >= self.target if self.least else median <= self.target
        sign = "≥" if self.least else "≤"
        spread = f"{min(self.values):,.4g} – {max(self.values):,.4g}"
        return f"{self.what:<58}{median:>10,.4g} {self.unit:<6}{spread:>22}  {sign} {self.target:<9,.6g}{'' if holds else 'MISSED'}"


def timed(run: Callable[[], object]) -> list[float]:
    """Return the seconds of five runs after one that warms up."""
    run()
    return [_once(run) for _ in range(REPEATS)]


def _once(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def predict(name: str, nodes: int, plan: Plan, batch: int) -> Callable[[], object]:
    """Return what predicts a job whose profiles are loaded."""
    model, cluster = load_model(name), load_cluster(f"dgx-a100-80gb:{nodes}")
    return lambda: simulate(model, cluster, plan, Recipe(global_batch=batch), software=SOFTWARE)


def lowered(name: str, nodes: int, plan: Plan, batch: int) -> Lowered:
    """Return a job ready to play."""
    return lower(place(load_model(name), load_cluster(f"dgx-a100-80gb:{nodes}"), plan, Recipe(global_batch=batch)), SOFTWARE)


def replicas(dp: int) -> list[float]:
    """Return the seconds of predicting 175B with `dp` replicas."""
    return timed(predict("gpt3-175b", 8 * dp, Plan(tp=8, pp=8, dp=dp), 64 * dp))


def instructions_per_s() -> list[float]:
    """Return the rate at which the engine plays kernels and other instructions of 175B, kernel by kernel."""
    job = lowered(*SMALL).job
    played = Engine(job, ops=True).play()
    kernels = sum(count * len(segment.ops) for rank in played.ranks for segment, count in zip(job.segments, rank.counts, strict=True))
    computes = sum(sum(rank.counts) for rank in played.ranks)
    instructions = kernels + played.instructions - computes
    return [instructions / seconds for seconds in timed(lambda: Engine(job, ops=True).play())]


def traced(slices: int) -> tuple[float, float]:
    """Return seconds and megabytes of writing a timeline of so many slices in a process of its own."""
    line = subprocess.run([sys.executable, str(TRACE), str(slices)], check=True, capture_output=True, text=True).stdout.split()
    return float(line[1]), float(line[5])


def rows() -> Iterator[Row]:
    """Yield the table line by line."""
    command = [sys.executable, "-m", "foretrain", *COMMAND.split()]
    process = timed(lambda: subprocess.run(command, check=True, capture_output=True))
    yield Row("foretrain simulate, 175B on 64, whole process", process, 0.8, "s")
    yield Row("predict 175B on 64: tp 8, pp 8, batch 64", [1e3 * s for s in timed(predict(*SMALL))], 20, "ms")
    yield Row("predict 530B on 280: tp 8, pp 35, vpp 3, batch 2,240", [1e3 * s for s in timed(predict(*LARGE))], 150, "ms")
    large = lowered(*LARGE).job
    yield Row("530B played in full, without the steady-state jump", timed(lambda: Engine(large).play()), 4, "s")
    small = lowered(*SMALL).job
    yield Row("max-plus recursion of 175B on 64, without an engine", [1e3 * s for s in timed(lambda: evaluate(small))], 20, "ms")
    alone, few_replicas, many = (sorted(replicas(dp)) for dp in (1, 2, 4096))
    yield Row("dp = 4,096 over dp = 2", [b / a for a, b in zip(few_replicas, many, strict=True)], 1.25, "×")
    yield Row("dp = 4,096 over dp = 1, which exchanges nothing", [b / a for a, b in zip(alone, many, strict=True)], 2, "×")
    yield Row("instructions played in op detail", [1e-3 * rate for rate in instructions_per_s()], 150, "k/s", least=True)
    few, full = [traced(10**5) for _ in range(3)], [traced(10**6) for _ in range(3)]
    yield Row("timeline of a million slices written", [s for s, _ in full], 30, "s")
    yield Row("the same over ten times a tenth of it", [b / (10 * a) for (a, _), (b, _) in zip(few, full, strict=True)], 1.5, "×")
    yield Row("the same, peak memory", [megabytes for _, megabytes in full], 500, "MB")


def main() -> None:
    """Print the table."""
    print(f"Python {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores, medians of {REPEATS} (timelines of 3)\n")
    print(f"{'':<58}{'median':>10} {'':<6}{'least – most':>22}  target")
    for row in rows():
        print(row, flush=True)


if __name__ == "__main__":
    main()
