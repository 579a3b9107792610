"""What makes accelerators unlike or chance play a part: slow devices, slow links, jitter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from numbers import Integral

from foretrain.errors import PlanError

LEAST, MOST = 0.01, 1000.0
MOST_JITTER = 1.0
SAMPLES = 200
"""Steps that are drawn where nobody says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """Accelerators and links that are not like the others, and chance.

    `ranks` and `nodes` say how many times longer kernels take on a rank, or on all ranks of a node; `links` how many times less the NICs
    of a node carry. `jitter` is the sigma of the logarithm of the time of each pass, whose mean stays; `samples` steps are drawn.
    Ranks that are folded into one share its draws: unfold a dimension for draws of their own.
    """

    ranks: Mapping[int, float] = field(default_factory=dict)
    nodes: Mapping[int, float] = field(default_factory=dict)
    links: Mapping[int, float] = field(default_factory=dict)
    jitter: float = 0.0
    samples: int = SAMPLES

    def __post_init__(self) -> None:
        """Refuse factors, sigmas and counts that are none."""
        for name in ("ranks", "nodes", "links"):
            for number, factor in getattr(self, name).items():
                _check_factor(name, number, factor)
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, int | float) or not 0.0 <= self.jitter <= MOST_JITTER:
            raise PlanError(f"jitter={self.jitter!r} is no spread of logarithms; give a number from 0 to {MOST_JITTER:g}, such as 0.02")
        if isinstance(self.samples, bool) or not isinstance(self.samples, Integral) or self.samples < 2:
            raise PlanError(f"samples={self.samples!r} are too few for percentiles; give a whole number from 2")
        if self.samples != SAMPLES and not self.jitter:
            raise PlanError(f"samples={self.samples} would all be the same step: jitter is 0; give a jitter, or leave samples out")

    def device_factor(self, rank: int, per_node: int) -> float:
        """Return how many times longer kernels take on a rank."""
        return self.ranks.get(rank, 1.0) * self.nodes.get(rank // per_node, 1.0)

    def check(self, ranks: int, per_node: int) -> None:
        """Refuse numbers of ranks and nodes that a plan does not occupy.

        Raises:
            PlanError: naming those that it does.
        """
        nodes = -(-ranks // per_node)
        for name, what, count in (("ranks", "rank", ranks), ("nodes", "node", nodes), ("links", "node", nodes)):
            beyond = next((number for number in getattr(self, name) if number >= count), None)
            if beyond is not None:
                raise PlanError(f"{name}: the plan occupies no {what} {beyond}; use one from 0 to {count - 1}")


CALM = Disturbance()
"""Nothing of the kind."""


def _check_factor(name: str, number: object, factor: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise PlanError(f"{name}: {number!r} is no number of one; give a whole number from 0")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not isfinite(factor) or not LEAST <= factor <= MOST:
        raise PlanError(f"{name} {number}: {factor!r} is no factor; give a number from {LEAST:g} to {MOST:g}, such as 1.2")
    if factor == 1.0:
        raise PlanError(f"{name} {number}: a factor of 1 changes nothing; give another, or leave it out")
    if name == "links" and factor < 1.0:
        raise PlanError(f"{name} {number}: {factor!r} would carry more than the NICs do; give a factor above 1")
