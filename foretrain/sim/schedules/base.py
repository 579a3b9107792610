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
from foretrain.sim.schedules.seats import LOOPED, Seats

FORWARD, BACKWARD, INPUT, WEIGHT = range(4)
"""Kinds of passes: forward; the whole backward; the gradient of the input alone; the gradient of the weights that it left."""


class Action(NamedTuple):
    """One pass of one micro-batch over one model chunk of a stage.

    Micro-batches follow in order from 0: those of a chunk's forward passes, of what gives gradients of its input (INPUT and BACKWARD
    together), and of what gives gradients of its weights (WEIGHT and BACKWARD together).
    """

    kind: int
    chunk: int

    @property
    def actions(self) -> tuple[Action, ...]:
        """The passes that it consists of."""
        return (self,)


class Pair(NamedTuple):
    """A forward and a backward pass as one: both take their messages before it and send theirs after it (torch's OVERLAP_F_B)."""

    forward: Action
    backward: Action

    @property
    def actions(self) -> tuple[Action, ...]:
        """The passes that it consists of."""
        return (self.forward, self.backward)


Pass = Action | Pair


@dataclass(frozen=True, slots=True)
class Run:
    """`body` played `repeat` times; `falling` where its micro-batches count down from the last."""

    body: tuple[Pass, ...]
    repeat: int
    falling: bool = False


Order = tuple[Run, ...]


class Schedule(ABC):
    """Emits the order of every stage. The engine knows no schedule by name."""

    name: str
    seats: Seats = LOOPED
    """Where the parts of the model sit."""

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


def counted(action: Action) -> tuple[tuple[int, int], ...]:
    """Return the counts of a chunk's micro-batches that a pass moves on: (FORWARD, INPUT or WEIGHT, chunk)."""
    if action.kind == BACKWARD:
        return (INPUT, action.chunk), (WEIGHT, action.chunk)
    return ((action.kind, action.chunk),)


def unrolled(order: Order) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, chunk, micro-batch) for every pass of an order, in turn."""
    seen: dict[tuple[int, int], int] = {}
    for run in order:
        whole = len(run.body) * run.repeat
        for _ in range(run.repeat):
            for action in (action for step in run.body for action in step.actions):
                index = seen.get(counted(action)[0], 0)
                seen.update({key: seen.get(key, 0) + 1 for key in counted(action)})
                yield action.kind, action.chunk, whole - 1 - index if run.falling else index


def first_of(order: Order, microbatches: int) -> Order:
    """Return the order without passes of micro-batches from `microbatches` on; for short orders, as it is written out."""
    kept = (Action(kind, chunk) for kind, chunk, index in unrolled(order) if index < microbatches)
    return order_of(Run(tuple(kept), 1))


def order_of(*runs: Run) -> Order:
    """Return the runs as an order, without those that play nothing, so that no order holds an empty run."""
    return tuple(run for run in runs if run.repeat and run.body)


def require_one_chunk(schedule: str, chunks: int, interleaving: str = "interleaved-1f1b") -> None:
    """Refuse model chunks for a schedule that runs one per stage.

    Raises:
        PlanError: for more than one chunk, naming the schedule that interleaves.
    """
    if chunks != 1:
        raise PlanError(f"schedule {schedule} runs one model chunk per stage, not vpp={chunks}; use schedule {interleaving} or vpp=1")


def require_microbatches(schedule: str, microbatches: int) -> None:
    """Refuse a step without work.

    Raises:
        PlanError: for fewer than one micro-batch.
    """
    if microbatches < 1:
        raise PlanError(f"schedule {schedule} has no micro-batch to run ({microbatches}): raise the global batch or lower dp, micro_batch")


def require_chunks(schedule: str, chunks: int, wanted: int) -> None:
    """Refuse other numbers of model chunks than the one that a schedule is made for.

    Raises:
        PlanError: naming the number.
    """
    if chunks != wanted:
        raise PlanError(f"schedule {schedule} runs {wanted} model chunks per stage, not vpp={chunks}; use vpp={wanted}")
