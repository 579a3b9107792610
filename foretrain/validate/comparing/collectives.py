"""Whether the collectives that a step is predicted to run are those that it was seen to start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretrain.sim.prediction import Prediction
from foretrain.units import parse
from foretrain.validate.comparing.profile import rank_of

MESSAGES = ("send", "recv")
TOLERANCE = 0.02
"""Difference of bytes that padding to whole shards explains."""

Wire = tuple[str, float]
"""What is put on the wire: an op, and the bytes of the full tensor."""
Total = tuple[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How the collectives of one step compare: a word, and (how many, their bytes) by op on either side."""

    word: str
    predicted: Mapping[str, Total]
    measured: Mapping[str, Total]


def agreement(prediction: Prediction, measured: Iterable[Mapping[str, Any]], rank: int = 0) -> Agreement:
    """Return how a rank's predicted collectives agree with those it was seen to start, of which small ones say nothing.

    Order counts among collectives; messages are posted ahead of their turn, and only their number and bytes do.
    """
    seen = _large((str(one["op"]), float(one["bytes"])) for one in measured)
    timeline = prediction.timeline("op")
    own = rank_of(timeline, prediction, rank).index
    told = _large((one.op, one.size_bytes) for one in timeline.transfers if one.rank == own)
    return Agreement(word=_word(told, seen), predicted=_totals(told), measured=_totals(seen))


def _large(found: Iterable[Wire]) -> list[Wire]:
    """Return what moves at least a kibibyte: less is a loss that is averaged, a norm, a flag or a barrier."""
    least = parse("1 KiB", "B")
    return [(op, size) for op, size in found if size >= least]


def _word(told: Sequence[Wire], seen: Sequence[Wire]) -> str:
    if not told and not seen:
        return "none"
    if Counter(op for op, _ in told) != Counter(op for op, _ in seen):
        totals = _totals(told), _totals(seen)
        alike = totals[0].keys() == totals[1].keys() and all(_close(totals[0][op][1], totals[1][op][1]) for op in totals[0])
        return "bytes agree, counts differ" if alike else "differ"
    ours, theirs = _apart(told), _apart(seen)
    if not all(_close(a, b) for a, b in zip(sorted(ours[1]), sorted(theirs[1]), strict=True)):
        return "bytes differ"
    if [op for op, _ in ours[0]] != [op for op, _ in theirs[0]]:
        return "order differs"
    return "agree" if all(_close(a, b) for (_, a), (_, b) in zip(ours[0], theirs[0], strict=True)) else "bytes differ"


def _apart(found: Sequence[Wire]) -> tuple[list[Wire], list[float]]:
    """Return collectives in order, and the bytes of messages."""
    return [one for one in found if one[0] not in MESSAGES], [size for op, size in found if op in MESSAGES]


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(one, other)


def _totals(found: Sequence[Wire]) -> dict[str, Total]:
    """Return, by op, how many there are and their bytes."""
    sizes: dict[str, list[float]] = {}
    for op, size in found:
        sizes.setdefault(op, []).append(size)
    return {op: (len(some), sum(some)) for op, some in sorted(sizes.items())}
