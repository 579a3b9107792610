"""What the engine plays: programs, one per simulated rank, and the channels, groups and links they use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from foretrain.sim.collectives import TransferCost
from foretrain.sim.segment import Segment

COMPUTE, RECEIVE, SEND, SEND_AND_WAIT, ISSUE, WAIT, RESIZE, UNTIL = range(8)
"""Opcodes: play a segment; take a message; send one (and wait until it has left); start a collective on a stream; wait for one;
allocate (positive) or free (negative) buffer bytes; wait for the host until so long after the step began."""


class Instruction(NamedTuple):
    """One opcode and its operand: a Segment, a channel or collective number, a slot, bytes, or seconds."""

    opcode: int
    operand: Any


class Repeat(NamedTuple):
    """`body` played `times` times."""

    body: tuple[Instruction, ...]
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """A FIFO of messages from one simulated rank to another."""

    source: int
    target: int
    cost: TransferCost


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveSpec:
    """A collective that a rank starts on a stream. Members of one `group` meet; `slot` is what a WAIT names."""

    name: str
    kind: str
    """Breakdown class while somebody waits for it."""
    cost: TransferCost
    group: int
    members: int
    stream: int
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One simulated rank: where it is, how many accelerators it stands for, and what it runs."""

    stage: int
    replica: int
    multiplicity: int
    node: int
    flows: int
    """Ranks on that node that it stands for."""
    label: str
    repeats: tuple[Repeat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything the engine needs. Streams: 0 computes, 1 data parallel, 2 other groups."""

    programs: tuple[Program, ...]
    segments: tuple[Segment, ...]
    channels: tuple[ChannelSpec, ...]
    collectives: tuple[CollectiveSpec, ...]
    streams: tuple[str, ...]
    port_bytes_per_s: float
    network_bytes_per_s: float
    overlap_loss: float
    queue_depth_s: float
    """How far the host can run ahead of the device."""
    slow_links: Mapping[int, float] = field(default_factory=dict)
    """How many times less the NICs of some nodes carry."""
    leads_s: tuple[float, ...] = ()
    """How far the host of each simulated rank is ahead of the device when the step begins; empty: none is."""
