"""Interleaved 1F1B: each stage holds several model chunks, which shortens the bubble."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from foretrain.errors import PlanError
from foretrain.sim.schedules.base import BACKWARD, FORWARD, Action, Order, Run, Schedule, order_of, require_microbatches
from foretrain.sim.schedules.one_f_one_b import OneForwardOneBackward
from foretrain.sim.schedules.zero_bubble import blocks


class InterleavedOneForwardOneBackward(Schedule):
    """Alternate passes of several chunks per stage: `round` micro-batches of the first chunk, as many of the next, and so on.

    A round is as many micro-batches as there are stages (Megatron-LM), stretched where the micro-batches do not divide by the
    stages but do by the rounds (torch). Chunk c of stage s is virtual stage s + c · stages. With one chunk it is plain 1F1B, as
    Megatron-LM then runs. Where the micro-batches equal the stages, early releases of Megatron-LM ran all forwards first; torch and
    this schedule alternate there as well.

    **Source:** Narayanan et al., arXiv:2104.04473, section 2.2.2; warm-up counts as in Megatron-LM's
    `forward_backward_pipelining_with_interleaving` and torch's `ScheduleInterleaved1F1B`.
    """

    name = "interleaved-1f1b"

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return warm-up, whole periods, the rest of the last period, and drain of one stage.

        Every stage's period starts with the first backward of the last chunk and holds the same passes: a round of each chunk.
        """
        if chunks == 1:
            return OneForwardOneBackward().order(stage=stage, stages=stages, chunks=1, microbatches=microbatches)
        require_microbatches(self.name, microbatches)
        size = round_size(stages=stages, microbatches=microbatches)
        forwards = [Action(FORWARD, chunk) for chunk in range(chunks)]
        backwards = [Action(BACKWARD, chunk) for chunk in reversed(range(chunks))]
        warmup = warmup_passes(stage=stage, stages=stages, chunks=chunks, microbatches=microbatches)
        pairs = chunks * microbatches - warmup
        body = _period(forwards, backwards, size=size, lead=warmup)
        periods, rest = divmod(pairs, size * chunks)
        return order_of(
            *blocks(forwards, size, start=0, passes=warmup),
            Run(body, periods),
            Run(body[: 2 * rest], 1),
            *blocks(backwards, size, start=pairs, passes=warmup),
        )


def round_size(*, stages: int, microbatches: int, schedule: str = "interleaved-1f1b") -> int:
    """Return how many micro-batches of a chunk run before the next chunk's turn.

    Raises:
        PlanError: where the micro-batches do not divide into equal rounds, naming the nearest counts that do.
    """
    if not _divides(stages, microbatches):
        below = next(m for m in count(microbatches - 1, -1) if _divides(stages, m))
        above = next(m for m in count(microbatches + 1) if _divides(stages, m))
        raise PlanError(
            f"schedule {schedule} cannot cut {microbatches} micro-batches into {_rounds(stages, microbatches)} equal rounds "
            f"for {stages} stages; nearest that can be: {below} and {above} (any multiple of {stages} can)"
        )
    return microbatches // _rounds(stages, microbatches)


def warmup_passes(*, stage: int, stages: int, chunks: int, microbatches: int) -> int:
    """Return the forwards that `stage` runs before it alternates: a round of every chunk but the last, and two per later stage."""
    rounds = (chunks - 1) * round_size(stages=stages, microbatches=microbatches)
    return min(rounds + 2 * (stages - 1 - stage), chunks * microbatches)


def _rounds(stages: int, microbatches: int) -> int:
    return max(1, microbatches // stages)


def _divides(stages: int, microbatches: int) -> bool:
    return microbatches % _rounds(stages, microbatches) == 0


def _period(forwards: Sequence[Action], backwards: Sequence[Action], *, size: int, lead: int) -> tuple[Action, ...]:
    """Return one period of forward and backward in turn, the forwards `lead` passes ahead; slices, so that it costs microseconds."""
    cycle = [action for action in forwards for _ in range(size)]
    phase = lead % len(cycle)
    body = [forwards[0]] * (2 * len(cycle))
    body[0::2] = cycle[phase:] + cycle[:phase]
    body[1::2] = [action for action in backwards for _ in range(size)]
    return tuple(body)
