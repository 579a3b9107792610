"""Orders that fill the bubble with gradients of weights: what the zero-bubble schedules of one direction have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from foretrain.sim.schedules.base import FORWARD, INPUT, WEIGHT, Action, Order, Run, order_of


def split_order(*, warmup: int, lag: int, chunks: int, size: int, microbatches: int) -> Order:
    """Return an order of forwards, input gradients and weight gradients.

    After `warmup` forwards they alternate with input gradients; weight gradients follow `lag` input gradients behind, and what remains
    of them comes last. `size` micro-batches of a chunk run before the next chunk's turn; one chunk has no turns.
    """
    forwards = [Action(FORWARD, chunk) for chunk in range(chunks)]
    inputs = [Action(INPUT, chunk) for chunk in reversed(range(chunks))]
    weights = [Action(WEIGHT, chunk) for chunk in reversed(range(chunks))]
    total, cycle = chunks * microbatches, chunks * size if chunks > 1 else 1
    pairs = total - warmup
    lag = min(lag, total)
    behind = min(lag, pairs)
    ahead = _interleaved(((forwards, warmup), (inputs, 0)), size, passes=behind)
    start = ((forwards, warmup + behind), (inputs, behind), (weights, 0))
    periods, rest = divmod(pairs - behind, cycle)
    done = pairs - lag
    drain = ((inputs, pairs), (weights, done))
    without = max(0, -done)
    return order_of(
        *blocks(forwards, size, start=0, passes=warmup),
        Run(ahead, 1),
        Run(_interleaved(start, size, passes=cycle), periods),
        Run(_interleaved(start, size, passes=rest), 1),
        *blocks(inputs, size, start=pairs, passes=without),
        *_alternating(drain, size, start=without, passes=warmup - without),
        *blocks(weights, size, start=total - lag, passes=lag),
    )


def blocks(actions: Sequence[Action], size: int, *, start: int, passes: int) -> Iterator[Run]:
    """Yield passes `start` to `start + passes` of the cycle that plays each action `size` times."""
    position, end = start, start + passes
    while position < end:
        stop = min(end, (position // size + 1) * size)
        yield Run((actions[position // size % len(actions)],), stop - position)
        position = stop


Lane = tuple[Sequence[Action], int]
"""Actions, each played `size` times in turn, and the position in their cycle that comes first."""


def _interleaved(lanes: Sequence[Lane], size: int, *, passes: int) -> tuple[Action, ...]:
    """Return `passes` steps that play one pass of every lane each."""
    return tuple(actions[(start + step) // size % len(actions)] for step in range(passes) for actions, start in lanes)


def _alternating(lanes: Sequence[Lane], size: int, *, start: int, passes: int) -> Iterator[Run]:
    """Yield `passes` steps of all lanes from step `start` on, alike ones in a row as one run."""
    step, end = start, start + passes
    while step < end:
        stop = min((end, *(((first + step) // size + 1) * size - first for _, first in lanes)))
        yield Run(tuple(actions[(first + step) // size % len(actions)] for actions, first in lanes), stop - step)
        step = stop
