"""What a trace notes: ops that ran, the memory they touched, and the modules that ran them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Data:
    """What an op reads, writes or keeps of one piece of memory: elements in the compute dtype, or bytes of another."""

    storage: int
    elements: int
    octets: int


@dataclass(slots=True, eq=False)
class Record:
    """One op that ran: forward, with the ops of its backward pass in `grads`, or one of those."""

    name: str
    kind: str
    """view, moves, product, convolution, attention, recurrent."""
    path: str
    number: int
    reads: list[Data] = field(default_factory=list)
    writes: list[Data] = field(default_factory=list)
    launches: int = 0
    fusible: bool = False
    shape: dict[str, Any] = field(default_factory=dict)
    """Sizes and facts of a product."""
    flop: int = 0
    saved: list[Data] = field(default_factory=list)
    grads: list[Record] = field(default_factory=list)
    live: bool = False
    """Whether its results need a gradient."""


@dataclass(slots=True)
class Call:
    """One run of a module: which, and the records it made."""

    path: str
    first: int
    last: int = -1
