"""Where the step went: every instant of every simulated rank in one class, averaged over accelerators."""

from __future__ import annotations

from collections.abc import Sequence

from foretrain.sim.prediction import BREAKDOWN
from foretrain.sim.rank import Rank
from foretrain.sim.segment import BUBBLE, HOST, PIPELINE, TENSOR, Segment


def rank_breakdown(rank: Rank, segments: Sequence[Segment]) -> dict[str, float]:
    """Return the seconds of one rank by class; they sum to the step."""
    seconds = dict.fromkeys(BREAKDOWN, 0.0)
    for segment, count in zip(segments, rank.counts, strict=True):
        if count:
            for name, value in segment.class_s.items():
                seconds[name] += value * count
    for source in (rank.extra, rank.exposed):
        for name, value in source.items():
            seconds[name] += value
    seconds[PIPELINE] += rank.messages_exposed_s
    seconds[BUBBLE] += rank.bubble_s
    seconds[HOST] += rank.host_wait_s
    return seconds


def breakdown(ranks: Sequence[Rank], segments: Sequence[Segment]) -> dict[str, float]:
    """Return the seconds by class, averaged over accelerators."""
    weight = sum(rank.program.multiplicity for rank in ranks)
    total = dict.fromkeys(BREAKDOWN, 0.0)
    for rank in ranks:
        for name, value in rank_breakdown(rank, segments).items():
            total[name] += value * rank.program.multiplicity / weight
    return total


def _inline(rank: Rank, segments: Sequence[Segment]) -> dict[str, float]:
    """Return the seconds of collectives inside the passes of one rank that ran behind compute."""
    seconds = {TENSOR: 0.0}
    for segment, count in zip(segments, rank.counts, strict=True):
        if count:
            for name, value in segment.hidden_s.items():
                seconds[name] = seconds.get(name, 0.0) + value * count
    return seconds


def hidden(ranks: Sequence[Rank], segments: Sequence[Segment]) -> dict[str, float]:
    """Return the seconds of communication by kind that ran behind compute, averaged over accelerators."""
    weight = sum(rank.program.multiplicity for rank in ranks)
    total: dict[str, float] = {}
    for rank in ranks:
        share = rank.program.multiplicity / weight
        for name, value in _inline(rank, segments).items():
            total[name] = total.get(name, 0.0) + value * share
        total[PIPELINE] = total.get(PIPELINE, 0.0) + max(0.0, rank.messages_s - rank.messages_exposed_s) * share
        for name, value in rank.moved.items():
            total[name] = total.get(name, 0.0) + max(0.0, value - rank.exposed.get(name, 0.0)) * share
    return total
