"""From a schedule's order of passes to instructions, run by run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain

from foretrain.sim.exchange import Exchange
from foretrain.sim.program import RECEIVE, SEND, SEND_AND_WAIT, Instruction, Repeat
from foretrain.sim.schedules.base import FORWARD, INPUT, WEIGHT, Action, Order, Pass, Run, counted

Ends = tuple[int | None, int | None]
"""Channel that a pass receives from and channel that it sends to; None where it has no neighbour on another stage."""

NONE = frozenset[Action]()


class Expansion:
    """Expands the order of one rank.

    The first forward of a chunk may wait for gathered parameters and its last gradient of weights may start reductions. Where the exchange
    says so, iterations that hold one stand apart; all others of a run share one body.
    """

    def __init__(self, exchange: Exchange, microbatches: int, ends: Mapping[tuple[bool, int], Ends]) -> None:
        self.exchange = exchange
        self.microbatches = microbatches
        self.ends = ends
        """By whether a pass goes forward, and its chunk."""
        self._seen: Counter[tuple[int, int]] = Counter()
        self._moved: dict[Pass, tuple[tuple[int, int], ...]] = {}
        self._known: dict[tuple[Pass, frozenset[Action]], list[Instruction]] = {}

    def expanded(self, order: Order) -> list[Repeat]:
        """Return an order as bodies of instructions."""
        return [repeat for run in order for repeat in self._run(run)]

    def _run(self, run: Run) -> list[Repeat]:
        steps = Counter(run.body)
        per_body = Counter[tuple[int, int]]()
        for step, times in steps.items():
            per_body.update(dict.fromkeys(self._moves(step), times))
        opens = self.exchange.first_apart and any(key[0] == FORWARD and not self._seen[key] for key in per_body)
        closes = self.exchange.last_apart and any(
            key[0] == WEIGHT and self._seen[key] + run.repeat * times == self.microbatches for key, times in per_body.items()
        )
        result = [Repeat(self._apart(run.body), 1)] if opens else []
        left = run.repeat - len(result)
        middle = left - 1 if closes else left
        if middle > 0:
            result.append(Repeat(self._alike(run.body, steps), middle))
            self._seen.update({key: times * middle for key, times in per_body.items()})
        if closes and left > 0:
            result.append(Repeat(self._apart(run.body), 1))
        return result

    def _moves(self, step: Pass) -> tuple[tuple[int, int], ...]:
        """Return the counts of micro-batches that a step moves on."""
        if step not in self._moved:
            self._moved[step] = tuple(key for action in step.actions for key in counted(action))
        return self._moved[step]

    def _alike(self, body: tuple[Pass, ...], distinct: Iterable[Pass]) -> tuple[Instruction, ...]:
        """Return an iteration without a first or last pass that stands apart."""
        known = {step: self._passed(step, NONE) for step in distinct}
        return tuple(chain.from_iterable(known[step] for step in body))

    def _apart(self, body: tuple[Pass, ...]) -> tuple[Instruction, ...]:
        """Return the next iteration, counting its passes so as to tell the first and the last of each kind."""
        instructions: list[Instruction] = []
        for step in body:
            for key in self._moves(step):
                self._seen[key] += 1
            special = NONE
            for action in step.actions:
                if self._special(action):
                    special |= {action}
            instructions += self._passed(step, special)
        return tuple(instructions)

    def _special(self, action: Action) -> bool:
        """Tell whether the pass just counted is the first forward or the last gradient of weights of its chunk, and stands apart."""
        if action.kind == FORWARD:
            return self.exchange.first_apart and self._seen[FORWARD, action.chunk] == 1
        if action.kind == INPUT:
            return False
        return self.exchange.last_apart and self._seen[WEIGHT, action.chunk] == self.microbatches

    def _passed(self, step: Pass, special: frozenset[Action]) -> list[Instruction]:
        """Return a step with its messages: all are received before it and sent after it."""
        if (step, special) not in self._known:
            ends = [self.ends[action.kind == FORWARD, action.chunk] for action in step.actions if action.kind != WEIGHT]
            send = SEND if self.exchange.context.software.overlap.pipeline else SEND_AND_WAIT
            passes = (self.exchange.passed(action.kind, action.chunk, special=action in special) for action in step.actions)
            self._known[step, special] = [
                *_instructions(RECEIVE, (receive for receive, _ in ends)),
                *chain.from_iterable(passes),
                *_instructions(send, (to for _, to in ends)),
            ]
        return self._known[step, special]


def _instructions(opcode: int, channels: Iterable[int | None]) -> list[Instruction]:
    return [Instruction(opcode, channel) for channel in channels if channel is not None]
