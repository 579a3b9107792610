"""From a schedule's order of passes to instructions, run by run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import chain

from foretrain.sim.exchange import Exchange
from foretrain.sim.program import Instruction, Repeat
from foretrain.sim.schedules.base import FORWARD, Action, Order, Run


class Expansion:
    """Expands the order of one rank.

    The first forward of a chunk may wait for gathered parameters and its last backward may start reductions. Where the exchange
    says so, iterations that hold one stand apart; all others of a run share one body.
    """

    def __init__(self, exchange: Exchange, microbatches: int, ends: Mapping[tuple[int, int], tuple[int | None, int | None]]) -> None:
        self.exchange = exchange
        self.microbatches = microbatches
        self.ends = ends
        self._seen: Counter[Action] = Counter()
        self._known: dict[tuple[Action, bool], list[Instruction]] = {}

    def expanded(self, order: Order) -> list[Repeat]:
        """Return an order as bodies of instructions."""
        return [repeat for run in order for repeat in self._run(run)]

    def _run(self, run: Run) -> list[Repeat]:
        per_body = Counter(run.body)
        opens = self.exchange.first_apart and any(a.kind == FORWARD and not self._seen[a] for a in per_body)
        closes = self.exchange.last_apart and any(
            a.kind != FORWARD and self._seen[a] + run.repeat * times == self.microbatches for a, times in per_body.items()
        )
        result = [Repeat(self._apart(run.body), 1)] if opens else []
        left = run.repeat - len(result)
        middle = left - 1 if closes else left
        if middle > 0:
            result.append(Repeat(self._alike(run.body, per_body), middle))
            self._seen.update({action: times * middle for action, times in per_body.items()})
        if closes and left > 0:
            result.append(Repeat(self._apart(run.body), 1))
        return result

    def _alike(self, actions: tuple[Action, ...], distinct: Counter[Action]) -> tuple[Instruction, ...]:
        """Return an iteration without a first or last pass that stands apart."""
        known = {action: self._passed(action, special=False) for action in distinct}
        return tuple(chain.from_iterable(known[action] for action in actions))

    def _apart(self, actions: tuple[Action, ...]) -> tuple[Instruction, ...]:
        """Return the next iteration, counting its passes so as to tell the first and the last of each kind."""
        instructions: list[Instruction] = []
        for action in actions:
            self._seen[action] += 1
            if action.kind == FORWARD:
                special = self.exchange.first_apart and self._seen[action] == 1
            else:
                special = self.exchange.last_apart and self._seen[action] == self.microbatches
            instructions += self._passed(action, special=special)
        return tuple(instructions)

    def _passed(self, action: Action, *, special: bool) -> list[Instruction]:
        if (action, special) not in self._known:
            receive, to = self.ends[action.kind, action.chunk]
            if action.kind == FORWARD:
                passed = self.exchange.forward(action.chunk, first=special, receive=receive, to=to)
            else:
                passed = self.exchange.backward(action.chunk, last=special, receive=receive, to=to)
            self._known[action, special] = passed
        return self._known[action, special]
