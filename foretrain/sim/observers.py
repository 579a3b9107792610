"""Who may listen to a play: a recorder of what happens, a watcher of the steady state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from foretrain.sim.program import CollectiveSpec
from foretrain.sim.rank import Channel, Rank
from foretrain.sim.segment import Leg, Segment

if TYPE_CHECKING:
    from foretrain.sim.engine import Engine


class Recorder(Protocol):
    """Hears what happens; `foretrain.sim.recorder` makes a timeline of it."""

    def piece(self, rank: Rank, leg: Leg | Segment, start_s: float, end_s: float) -> None:
        """Take one played leg or segment."""

    def transfer(self, rank: Rank, spec: CollectiveSpec, start_s: float, end_s: float) -> None:
        """Take one collective of a background stream."""

    def message(self, channel: Channel, sent_s: float, arrived_s: float) -> None:
        """Take one point-to-point message, now received."""

    def memory(self, rank: Rank, time_s: float) -> None:
        """Take the memory of a rank, now changed."""


class Watcher(Protocol):
    """Looks at the engine whenever the pacing rank comes to certain places of its body; `foretrain.sim.steady` jumps periods so."""

    def turn(self, engine: Engine) -> None:
        """Look, and jump if the state has been here before."""
