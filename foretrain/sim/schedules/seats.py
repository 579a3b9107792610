"""Where the parts of a model sit in a pipeline: which stage holds which, as which of its chunks.

A line is a sequence of seats, one per part of the model in the model's order; micro-batches go along it forward and back. Most schedules
have one line; a bidirectional pipeline has two, each with its own copy of the model and half of the micro-batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple


class Seat(NamedTuple):
    """A chunk of a stage."""

    stage: int
    chunk: int


Line = tuple[Seat, ...]


class Seats(ABC):
    """A way to seat the parts of a model."""

    copies: int
    """Copies of the model in one pipeline, each with its line."""

    @abstractmethod
    def lines(self, *, stages: int, chunks: int) -> tuple[Line, ...]:
        """Return the lines of a pipeline of `stages` stages, where a copy of the model has `chunks` chunks on each."""


class Looped(Seats):
    """Parts go round the stages again and again: chunk c of stage s is part c · stages + s."""

    copies = 1

    def lines(self, *, stages: int, chunks: int) -> tuple[Line, ...]:
        """Return the one line. **Source:** Narayanan et al., arXiv:2104.04473, section 2.2.2."""
        return (tuple(Seat(part % stages, part // stages) for part in range(stages * chunks)),)


class Vee(Seats):
    """Parts go down the stages and back up, so that the first stage holds both ends of the model: chunk 1 of stage s is part 2p - 1 - s."""

    copies = 1

    def lines(self, *, stages: int, chunks: int) -> tuple[Line, ...]:
        """Return the one line, which turns at the last stage. **Source:** Qi et al., arXiv:2405.15362, section 4."""
        ways = (range(stages) if chunk % 2 == 0 else range(stages - 1, -1, -1) for chunk in range(chunks))
        return (tuple(Seat(stage, chunk) for chunk, way in enumerate(ways) for stage in way),)


class Bidirectional(Seats):
    """Two copies of the model: chunk 0 of stage s is part s of one, chunk 1 part p - 1 - s of the other, which enters at the last stage."""

    copies = 2

    def lines(self, *, stages: int, chunks: int) -> tuple[Line, ...]:
        """Return both lines. **Source:** DeepSeek-AI, DeepSeek-V3, arXiv:2412.19437, section 3.2.1."""
        down = tuple(Seat(part % stages, part // stages) for part in range(stages * chunks))
        return down, tuple(Seat(stages - 1 - stage, chunks + chunk) for stage, chunk in down)


LOOPED = Looped()
VEE = Vee()
BIDIRECTIONAL = Bidirectional()
