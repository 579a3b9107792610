"""The steady-state jump: when the engine's state comes back, whole periods are skipped, exactly.

A pipeline without chance is a max-plus linear system, so after a transient its state repeats up to a shift in time. At some places
of the body that the pacing rank repeats, the state relative to now is compared with earlier ones: positions exactly, times to
rounding. When one matches, every rank is in the same repeated body as then and has played the same number of iterations since; the
jump takes as many of these periods off all ranks as all of them have left, and adds what one period used, times their number.

**Source:** Baccelli, Cohen, Olsder, Quadrat, Synchronization and Linearity (1992), theorem 3.109 (cyclicity of max-plus powers).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simpy.events import NORMAL, Event

from foretrain.sim.rank import BLOCKED, DONE, LEGS, Channel, Rank

if TYPE_CHECKING:
    from foretrain.sim.engine import Engine

AGREE = 1e-10
"""Two relative times are the same when they differ by less than this share of the period."""
SETTLE = 1e-11
"""Share of the clock that a look waits, so that events which rounding spreads over an instant are all behind it."""
REMEMBERED = 24
"""Earlier states that a new one is compared with; a period can span several iterations."""
PATIENCE = 400
"""Looks without a match after which the search is given up."""


@dataclass(frozen=True, slots=True)
class State:
    """A moment: exact positions, times relative to it, totals so far and iterations left."""

    now: float
    positions: tuple[object, ...]
    times: tuple[float, ...]
    totals: tuple[Totals, ...]
    left: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """What one rank had used at a moment."""

    counts: list[int]
    floats: tuple[float, ...]
    maps: tuple[dict[str, float], ...]


class SteadyState:
    """Watches an engine and jumps when its state repeats."""

    def __init__(self) -> None:
        self.past: deque[State] = deque(maxlen=REMEMBERED)
        self.looks = 0
        self.jumped = 0

    def turn(self, engine: Engine) -> None:
        """Have the state looked at once everything that happens at this instant, to rounding, has happened."""
        if engine.pacer.repeats_left < 2 or self.looks > PATIENCE:
            return
        self.looks += 1
        event = Event(engine.env)
        event._ok, event._value = True, None
        turned = engine.env.now
        event.callbacks = [lambda _fired: self._look(engine, turned)]
        engine.env.schedule(event, NORMAL, engine.env.now * SETTLE)

    def _look(self, engine: Engine, turned: float) -> None:
        """Compare the state with earlier ones, and jump if it has been here before."""
        state = _state(engine, turned)
        if state is None:
            return
        for earlier in reversed(self.past):
            if earlier.positions == state.positions and _agree(earlier, state):
                self._jump(engine, earlier, state)
                return
        self.past.append(state)

    def _jump(self, engine: Engine, earlier: State, state: State) -> None:
        played = [before - after for before, after in zip(earlier.left, state.left, strict=True)]
        if min(played) < 1:
            return
        periods = min((rank.repeats_left + _goes_on(rank)) // step for rank, step in zip(engine.ranks, played, strict=True))
        if periods < 1:
            return
        for rank, step, before in zip(engine.ranks, played, earlier.totals, strict=True):
            engine.instructions -= periods * step * len(rank.body)
            rank.repeats_left -= periods * step
            if rank.repeats_left < 0:
                rank.loop += 1
                rank.body, rank.repeats_left = rank.program.repeats[rank.loop].body, 0
            _advance(rank, before, periods)
        engine.offset += periods * (state.now - earlier.now)
        self.jumped += periods
        self.past.clear()


def _goes_on(rank: Rank) -> bool:
    """Tell whether a rank, after its loop, plays once more what it has played of the body; a jump may land there."""
    following = rank.program.repeats[rank.loop + 1 : rank.loop + 2]
    here = slice(rank.pc + 1)
    return any(repeat.times == 1 and repeat.body[here] == rank.body[here] for repeat in following)


def _state(engine: Engine, now: float) -> State | None:
    """Return the state relative to the turn at `now`; None while a rank is done, where no jump is tried."""
    positions: list[object] = []
    times: list[float] = []
    for rank in engine.ranks:
        if rank.mode == DONE or rank.loop < 0:
            return None
        _rank_state(rank, now, engine.job.queue_depth_s, positions, times)
    for channel in engine.messages.channels:
        positions.append((len(channel.queue), channel.waiter is None))
        times += [max(0.0, transfer.arrival - now) for transfer in channel.queue]
    for link in engine.links:
        flying = sorted((user.end - now, user.speed, user.shared) for user in link.users if user.end > now and not user.ended)
        positions.append(tuple(shared for _, _, shared in flying))
        times += [number for end, speed, _ in flying for number in (end, speed)]
    times += [meeting.ends - now for meeting in engine.groups.running]
    totals = tuple(_totals(rank) for rank in engine.ranks)
    return State(now, tuple(positions), tuple(times), totals, tuple(rank.repeats_left for rank in engine.ranks))


def _rank_state(rank: Rank, now: float, queue_depth_s: float, positions: list[object], times: list[float]) -> None:
    waiting = rank.waiting
    armed = rank.event is not None and rank.event.callbacks is not None
    what = id(waiting) if isinstance(waiting, Channel) else waiting if isinstance(waiting, int) else None
    kind = waiting.__class__.__name__
    positions.append((rank.loop, rank.pc, rank.mode, what, kind, armed, rank.active, rank.leg, frozenset(rank.pending)))
    positions.append(tuple(tuple(spec.slot for spec in stream) for stream in rank.streams))
    times.append(max(rank.host - now, -queue_depth_s))
    times.append(max(0.0, rank.wake_at - now) if armed else 0.0)
    if rank.mode == BLOCKED:
        times.append(now - rank.wait_since)
    if rank.mode == LEGS:
        times += (rank.leg_left, now - rank.leg_since, rank.leg_rate, max(rank.leg_end - now, 0.0), now - rank.leg_start)


def _agree(earlier: State, state: State) -> bool:
    if len(earlier.times) != len(state.times):
        return False
    slack = AGREE * (state.now - earlier.now)
    return all(abs(a - b) <= slack for a, b in zip(earlier.times, state.times, strict=True))


_FLOATS = ("bubble_s", "host_wait_s", "messages_s", "messages_exposed_s", "link_bytes", "activations", "buffers")
_MAPS = ("extra", "exposed", "moved")


def _totals(rank: Rank) -> Totals:
    floats = tuple(getattr(rank, name) for name in _FLOATS)
    return Totals(list(rank.counts), floats, tuple(dict(getattr(rank, name)) for name in _MAPS))


def _advance(rank: Rank, before: Totals, periods: int) -> None:
    """Add what `periods` more periods use; memory that grows by the period raises the peak with it."""
    for index, count in enumerate(before.counts):
        rank.counts[index] += periods * (rank.counts[index] - count)
    for name, value in zip(_FLOATS, before.floats, strict=True):
        grown = periods * (getattr(rank, name) - value)
        setattr(rank, name, getattr(rank, name) + grown)
        if name == "activations" and grown > 0.0:
            rank.peak += grown
            rank.peak_activations += grown
    for name, earlier in zip(_MAPS, before.maps, strict=True):
        totals = getattr(rank, name)
        for key in totals:
            totals[key] += periods * (totals[key] - earlier.get(key, 0.0))
