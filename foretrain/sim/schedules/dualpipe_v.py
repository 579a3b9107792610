"""DualPipeV: DualPipe cut in half, one copy of the model laid over the stages as a V."""

from __future__ import annotations

from foretrain.errors import PlanError
from foretrain.sim.schedules.base import (
    BACKWARD,
    FORWARD,
    INPUT,
    WEIGHT,
    Action,
    Order,
    Pair,
    Pass,
    Run,
    Schedule,
    order_of,
    require_chunks,
    require_microbatches,
)
from foretrain.sim.schedules.seats import VEE


class DualPipeV(Schedule):
    """Two chunks per stage; in the steady state a forward pass of one chunk and a backward pass of the other run as one.

    With F and B seconds for the passes of a chunk, W of B for its weights and F&B for a pair, the bubble is (p - 1)(F&B + B - 3W) over p
    stages, and a stage holds at most 2p + 1 passes.

    **Source:** DeepSeek-AI, DualPipe and DualPipeV, github.com/deepseek-ai/DualPipe; order as torch's `ScheduleDualPipeV`.
    """

    name = "dualpipe-v"
    seats = VEE

    def order(self, *, stage: int, stages: int, chunks: int, microbatches: int) -> Order:
        """Return the eight phases of one stage."""
        require_chunks(self.name, chunks, 2)
        require_microbatches(self.name, microbatches)
        if microbatches < 2 * stages:
            raise PlanError(
                f"schedule dualpipe-v fills {stages} stages with at least {2 * stages} micro-batches, not {microbatches}; "
                "raise the global batch, or lower pp, dp or micro_batch"
            )
        return phases(stage, stages, microbatches, near=0)


def phases(stage: int, stages: int, microbatches: int, *, near: int) -> Order:
    """Return the order of a stage whose chunk `near` comes first on the way from its end of the pipeline; the other follows."""
    far = 1 - near
    f0, f1 = Action(FORWARD, near), Action(FORWARD, far)
    b0, b1 = Action(BACKWARD, near), Action(BACKWARD, far)
    i0, i1 = Action(INPUT, near), Action(INPUT, far)
    later = stages - stage - 1
    main = microbatches - 2 * stages + stage + 1
    body: tuple[Pass, ...] = (Pair(f0, b1), Pair(f1, b0))
    turn = stage == stages - 1
    whole, split, left = _drain(stage, b0=b0, b1=b1, i0=i0, i1=i1)
    waiting = [Action(WEIGHT, action.chunk) for action in split] + [Action(WEIGHT, near)] * later
    return order_of(
        Run((f0,), 2 * later),
        Run((f0, f1), stage + 1),
        Run((i1, Action(WEIGHT, far), f1), later),
        # Where the V turns, the first two passes are not run as one, which shortens the bubble.
        Run((f0, b1, Pair(f1, b0)), int(turn)),
        Run(body, main - turn),
        Run((b1, Pair(f1, b0)), later),
        *whole,
        *left,
        Run(tuple(step for weight in waiting[:later] for step in (weight, i0)), 1),
        Run(tuple(waiting[later:]), 1),
    )


def _drain(stage: int, *, b0: Action, b1: Action, i0: Action, i1: Action) -> tuple[list[Run], list[Action], list[Run]]:
    """Return the last backwards of both chunks in turn: the whole ones, the split ones in the second half as actions and as runs."""
    half, odd = divmod(stage + 1, 2)
    # Half of the passes are split: on even stages from the second pass of the middle pair on, on odd ones from its first.
    middle = [Run((b1, i0), 1)] if odd else []
    split = stage + 1 - half - odd
    actions = [i0] * odd + [i1, i0] * split
    return [Run((b1, b0), half), *middle], actions, [Run((i1, i0), split)]
