"""What the simulator says to each row: one prediction per distinct job, in this process or in several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from foretrain.errors import ForetrainError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.sim.prediction import Prediction
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.validate.cells import Row
from foretrain.validate.llm_rows import Job, Library, Refusal
from foretrain.validate.step_kinds import STEP_KINDS

Progress = Callable[[int, int], None]
"""Called with how many distinct jobs are done, and how many there are."""

SERIAL = 200
"""Up to so many jobs a pool of processes costs more than it saves."""
_CHUNK = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The prediction for one row in SI units, or the reason why there is none."""

    step_time_s: float | None = None
    memory_bytes: float | None = None
    fits: bool | None = None
    assumed: tuple[str, ...] = ()
    reason: str = ""


def answer(row: Row, kind: str = "llm_runs") -> Answer:
    """Return the prediction for one row of a kind of file, or the reason why it cannot be simulated."""
    try:
        return _answer(row, kind)
    except Exception as error:  # a bug met on one row must not lose the others; it is listed, and counts against coverage
        return Answer(reason=f"internal error, please report it: {type(error).__name__}: {error}")


def _answer(row: Row, kind: str) -> Answer:
    job = STEP_KINDS[kind].job(row, Library(cluster=_one_node, software=load_software))
    if isinstance(job, Refusal):
        return Answer(reason=job.reason)
    try:
        prediction = simulate(job.model, job.cluster, job.plan, job.recipe, software=job.software)
    except ForetrainError as error:
        return Answer(assumed=job.assumed, reason=str(error))
    return Answer(
        step_time_s=step_time_s(job, prediction),
        memory_bytes=max(stage.reserved_bytes if job.reserved else stage.peak_bytes for stage in prediction.memory),
        fits=prediction.fits,
        assumed=job.assumed,
    )


def step_time_s(job: Job, prediction: Prediction) -> float:
    """Return the time that the row measured of a predicted step: without the parts that it leaves out, as often as it ran."""
    return (prediction.step_s - sum(prediction.breakdown.get(part, 0.0) for part in job.without)) * job.steps


def answers(
    rows: Sequence[Row], kind: str = "llm_runs", *, progress: Progress | None = None, executor: Executor | None = None
) -> list[Answer]:
    """Return the answer to every row of a kind of file, in order; equal jobs are simulated once.

    Without an `executor`, a few jobs run here and many in a pool of one process per core.
    """
    keys = [STEP_KINDS[kind].key(row) for row in rows]
    distinct = dict(zip(keys, rows, strict=True))
    found: dict[object, Answer] = {}
    for chunk, replies in _replies(list(distinct.items()), kind, executor):
        found.update(zip(chunk, replies, strict=True))
        if progress is not None:
            progress(len(found), len(distinct))
    return [found[key] for key in keys]


_Keyed = tuple[object, Row]


def _replies(jobs: list[_Keyed], kind: str, executor: Executor | None) -> Iterator[tuple[list[object], list[Answer]]]:
    """Yield the keys of each chunk with their answers, as they come."""
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    if executor is None and len(jobs) <= SERIAL:
        for chunk in chunks:
            yield [key for key, _ in chunk], _answer_all([row for _, row in chunk], kind)
        return
    with _pool(executor) as pool:
        running = {pool.submit(_answer_all, [row for _, row in chunk], kind): chunk for chunk in chunks}
        for done in as_completed(running):
            yield [key for key, _ in running[done]], done.result()


def _pool(executor: Executor | None) -> AbstractContextManager[Executor]:
    return nullcontext(executor) if executor is not None else ProcessPoolExecutor(max_workers=os.cpu_count())


def _answer_all(rows: list[Row], kind: str) -> list[Answer]:
    return [answer(row, kind) for row in rows]


def _one_node(name: str) -> Cluster:
    return load_cluster(f"{name}:1")
