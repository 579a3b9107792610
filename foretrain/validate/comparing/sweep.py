"""Every instant of a step in exactly one class, whatever runs side by side: as the breakdown of a prediction, of measured pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from foretrain.sim.prediction import BREAKDOWN
from foretrain.sim.segment import BUBBLE, HOST, MATH, MEMORY, OPTIMIZER

COMPUTE = (MATH, MEMORY, OPTIMIZER)
COMMUNICATION = tuple(name for name in BREAKDOWN if name.endswith("_parallel"))
PRIORITY = (*COMPUTE, *COMMUNICATION, HOST)
"""Who an instant belongs to where several run: compute hides communication."""
OVERHEAD = "overhead"


class Piece(NamedTuple):
    """A stretch of one stream or thread. `launched_s` is when the host asked for it, where that is known."""

    kind: str
    group: str
    phase: str
    name: str
    start_s: float
    end_s: float
    launched_s: float | None = None
    launches: int = 1
    size_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Seconds by class, which sum to the step, and seconds of communication by kind that ran behind compute."""

    breakdown: Mapping[str, float]
    hidden: Mapping[str, float]


def sweep(pieces: Sequence[Piece], start_s: float, end_s: float, next_launched_s: float | None = None) -> Swept:
    """Return where the time from `start_s` to `end_s` went.

    A gap is overhead where what follows it had been asked for before the gap began: the device was not waiting for its host. What
    follows the end was asked for at `next_launched_s`.
    """
    edges = sorted(_edges(pieces, start_s, end_s))
    seconds = dict.fromkeys((name for name in BREAKDOWN if name != BUBBLE), 0.0)
    moved = dict.fromkeys(COMMUNICATION, 0.0)
    running: Counter[str] = Counter()
    before = start_s
    for at, change, piece in (*edges, (end_s, 1, Piece(HOST, "", "", "", end_s, end_s, next_launched_s))):
        if at > before:
            busy = next((kind for kind in PRIORITY if running[kind]), None)
            seconds[busy or _gap(piece, change, before)] += at - before
            for kind in COMMUNICATION:
                moved[kind] += (at - before) * bool(running[kind])
        before = max(before, at)
        running[piece.kind] += change
    return Swept(breakdown=seconds, hidden={kind: moved[kind] - seconds[kind] for kind in COMMUNICATION if moved[kind]})


def _edges(pieces: Iterable[Piece], start_s: float, end_s: float) -> Iterable[tuple[float, int, Piece]]:
    for piece in pieces:
        first, last = max(piece.start_s, start_s), min(piece.end_s, end_s)
        if last > first:
            yield first, 1, piece
            yield last, -1, piece


def _gap(following: Piece, change: int, since_s: float) -> str:
    asked_before = change > 0 and following.launched_s is not None and following.launched_s <= since_s
    return OVERHEAD if asked_before else HOST
