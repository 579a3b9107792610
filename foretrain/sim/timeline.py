"""What each simulated rank did, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Slice(NamedTuple):
    """One stretch of one stream. `kind` is a breakdown class; `joules` is the dynamic energy it adds, spread evenly.

    `launches` counts its kernels, and `work` says what they are (gemm, convolution, attention, stream) where they are alike.
    """

    rank: int
    stream: int
    name: str
    kind: str
    start_s: float
    duration_s: float
    joules: float
    launches: int = 0
    work: str = ""


class Flow(NamedTuple):
    """A send: from the end of a slice of one rank to the arrival at another."""

    source_rank: int
    sent_s: float
    target_rank: int
    arrived_s: float


class Transfer(NamedTuple):
    """One collective (all_reduce and the like) or message (send, recv) of a rank, its class, and the bytes of the full tensor."""

    rank: int
    op: str
    kind: str
    size_bytes: float
    start_s: float
    end_s: float


class MemoryPoint(NamedTuple):
    """Bytes in use on a rank from `time_s` on."""

    rank: int
    time_s: float
    in_use_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRank:
    """A rank that was played: its pipeline stage, and how many accelerators do exactly the same."""

    index: int
    stage: int
    label: str
    multiplicity: int
    breakdown: Mapping[str, float] = field(default_factory=dict)
    """Its seconds by class, which sum to the step."""
    hidden: Mapping[str, float] = field(default_factory=dict)
    """Its seconds of communication by kind that ran behind compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Slices in the order they began. `streams` names the streams by number; stream 0 computes."""

    ranks: tuple[SimulatedRank, ...]
    streams: tuple[str, ...]
    slices: tuple[Slice, ...]
    flows: tuple[Flow, ...]
    memory: tuple[MemoryPoint, ...]
    step_s: float
    baseline_w: float
    """Power of one accelerator and its share of host and network while it does nothing."""
    transfers: tuple[Transfer, ...] = ()
    """Collectives and messages in the order they began; those inside passes only where every kernel was played."""
