"""What a pipeline schedule is: an object that emits, for each stage, the order of its forward and backward passes.

Orders are run-length coded, because a steady state of thousands of micro-batches is one short body repeated; that lets the engine
see the period instead of searching for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from foretrain.errors import PlanError

FORWARD = 0
BACKWARD = 1


class Action(NamedTuple):
    """One pass of one micro-batch over one model chunk of a stage. Micro-batches of a (kind, chunk) follow in order, from 0."""

    kind: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Run:
    """`body` played `repeat` times."""

    body: tuple[Action, ...]
    repeat: int


Order = tuple[Run, ...]


class Schedule(ABC):
    """Emits the order of every stage. The engine knows no schedule by name."""

    name: str

    def __eq__(self, other: object) -> bool:
        """Tell whether `other` gives the same orders, so that equal plans are equal: the same class with the same settings."""
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        """Return the hash of the class: schedules have few settings, most none."""
        return hash(type(self))

    def __repr__(self) -> str:
        """Return the schedule as it is made."""
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"

    @abstractmethod
    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return what `stage` of `stages` runs, for `chunks` model chunks per stage and `microbatches` micro-batches.

        Raises:
            PlanError: where the schedule cannot serve these numbers; the message says which it can.
        """


def unrolled(order: Order) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, chunk, micro-batch) for every pass of an order, in turn."""
    seen: dict[Action, int] = {}
    for run in order:
        for _ in range(run.repeat):
            for action in run.body:
                index = seen.get(action, 0)
                seen[action] = index + 1
                yield action.kind, action.chunk, index


def order_of(*runs: Run) -> Order:
    """Return the runs as an order, without those that play nothing, so that no order holds an empty run."""
    return tuple(run for run in runs if run.repeat and run.body)


def require_one_chunk(schedule: str, chunks: int) -> None:
    """Refuse model chunks for a schedule that runs one per stage.

    Raises:
        PlanError: for more than one chunk, naming the schedule that interleaves.
    """
    if chunks != 1:
        raise PlanError(f"schedule {schedule} runs one model chunk per stage, not vpp={chunks}; use schedule interleaved-1f1b or vpp=1")


def require_microbatches(schedule: str, microbatches: int) -> None:
    """Refuse a step without work.

    Raises:
        PlanError: for fewer than one micro-batch.
    """
    if microbatches < 1:
        raise PlanError(f"schedule {schedule} has no micro-batch to run ({microbatches}): raise the global batch or lower dp, micro_batch")
