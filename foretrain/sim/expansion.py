"""From a schedule's order of passes to instructions, run by run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from foretrain.sim.exchange import Exchange
from foretrain.sim.program import Instruction, Repeat
from foretrain.sim.schedules.base import FORWARD, Action, Order, Run


class Expansion:
    """Expands the order of one rank.

    The first forward of a chunk may wait for gathered parameters and its last backward may start reductions, so iterations that
    hold one stand apart; all others of a run share one body.
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
        result: list[Repeat] = []
        left = run.repeat
        if left and any(action.kind == FORWARD and not self._seen[action] for action in per_body):
            result.append(Repeat(self._body(run.body), 1))
            left -= 1
        closes = any(a.kind != FORWARD and self._seen[a] + left * n == self.microbatches for a, n in per_body.items())
        middle = left - 1 if closes else left
        if middle > 0:
            before = self._seen.copy()
            result.append(Repeat(self._body(run.body), middle))
            self._seen = before + Counter({action: times * middle for action, times in per_body.items()})
        if closes and left > 0:
            result.append(Repeat(self._body(run.body), 1))
        return result

    def _body(self, actions: tuple[Action, ...]) -> tuple[Instruction, ...]:
        instructions: list[Instruction] = []
        for action in actions:
            self._seen[action] += 1
            special = self._seen[action] == (1 if action.kind == FORWARD else self.microbatches)
            if (action, special) not in self._known:
                self._known[action, special] = self._passed(action, special=special)
            instructions += self._known[action, special]
        return tuple(instructions)

    def _passed(self, action: Action, *, special: bool) -> list[Instruction]:
        receive, to = self.ends[action.kind, action.chunk]
        if action.kind == FORWARD:
            return self.exchange.forward(action.chunk, first=special, receive=receive, to=to)
        return self.exchange.backward(action.chunk, last=special, receive=receive, to=to)
