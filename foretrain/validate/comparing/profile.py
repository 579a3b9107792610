"""A step as what may be compared: seconds by class, by group of ops and by phase, launches, and what took longest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from foretrain.sim.prediction import Prediction
from foretrain.sim.segment import BUBBLE, HOST, OPTIMIZER, PIPELINE
from foretrain.sim.timeline import SimulatedRank, Slice, Timeline
from foretrain.validate.comparing.classes import ATTENTION, CONVOLUTION, MATMUL, is_backward, stream_group
from foretrain.validate.comparing.measured import BACKWARD, COMMUNICATION, FORWARD, measured_pieces
from foretrain.validate.comparing.steps import Step
from foretrain.validate.comparing.sweep import COMMUNICATION as TRANSFERS
from foretrain.validate.comparing.sweep import Piece, sweep
from foretrain.validate.comparing.trace_file import Trace

_WORK = {"gemm": MATMUL, "convolution": CONVOLUTION, "attention": ATTENTION}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What kernels of one group, or of one name, took together; bytes of collectives where they are known."""

    seconds: float
    launches: int
    size_bytes: float = 0.0


NONE = Share(seconds=0.0, launches=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """One step, predicted or measured. `breakdown` sums to `step_s`; groups may run side by side."""

    step_s: float
    breakdown: Mapping[str, float]
    hidden: Mapping[str, float]
    groups: Mapping[str, Share]
    phases: Mapping[str, float]
    names: Mapping[str, Share]

    @property
    def launches(self) -> int:
        """Kernels, or ops of the host that work on data."""
        return sum(share.launches for share in self.groups.values())

    @property
    def host_share(self) -> float:
        """Share of the step in which nothing but the host worked."""
        return self.breakdown.get(HOST, 0.0) / self.step_s if self.step_s else 0.0

    @property
    def host_bound(self) -> bool:
        """Whether more of the step goes to waiting for the host than to anything else."""
        return self.breakdown.get(HOST, 0.0) >= max(self.breakdown.values(), default=0.0) > 0.0


def measured_profile(trace: Trace, step: Step, prediction: Prediction) -> StepProfile:
    """Return the profile of a measured step of the job that a prediction is of."""
    pieces = measured_pieces(trace, step, prediction.plan)
    swept = sweep(pieces, step.start_s, step.end_s, step.next_launched_s)
    return _profile(pieces, swept.breakdown, swept.hidden, step.seconds)


def predicted_profile(timeline: Timeline, rank: SimulatedRank) -> StepProfile:
    """Return the profile of a simulated rank, of a timeline that has every kernel.

    Waiting for other stages is counted with the messages between them: a recorded receive does not tell the one from the other.
    """
    pieces = [_piece(one) for one in timeline.slices if one.rank == rank.index and one.kind not in TRANSFERS]
    pieces += [
        Piece(one.kind, one.op, COMMUNICATION, one.op, one.start_s, one.end_s, size_bytes=one.size_bytes)
        for one in timeline.transfers
        if one.rank == rank.index
    ]
    seconds = {name: value for name, value in rank.breakdown.items() if name != BUBBLE}
    seconds[PIPELINE] = seconds.get(PIPELINE, 0.0) + rank.breakdown.get(BUBBLE, 0.0)
    return _profile(pieces, seconds, {kind: value for kind, value in rank.hidden.items() if value > 0.0}, timeline.step_s)


def rank_of(timeline: Timeline, prediction: Prediction, rank: int) -> SimulatedRank:
    """Return the simulated rank that stands for a global rank: one of its pipeline stage."""
    plan = prediction.plan
    stage = rank // plan.strides["pp"] % plan.pp
    return next((one for one in timeline.ranks if one.stage == stage), timeline.ranks[0])


def _piece(one: Slice) -> Piece:
    group = one.kind if one.kind in (OPTIMIZER, HOST) else _WORK.get(one.work) or stream_group(one.name)
    phase = one.kind if one.kind in (OPTIMIZER, HOST) else BACKWARD if is_backward(one.name) else FORWARD
    return Piece(one.kind, group, phase, one.name, one.start_s, one.start_s + one.duration_s, launches=one.launches)


def _profile(pieces: Sequence[Piece], seconds: Mapping[str, float], hidden: Mapping[str, float], step_s: float) -> StepProfile:
    phases: dict[str, float] = defaultdict(float)
    for piece in pieces:
        if piece.kind != HOST:
            phases[piece.phase] += piece.end_s - piece.start_s
    working = [piece for piece in pieces if piece.group != HOST]
    return StepProfile(
        step_s=step_s, breakdown=dict(seconds), hidden=dict(hidden), phases=dict(phases),
        groups=_shares((piece.group, piece) for piece in working), names=_shares((piece.name, piece) for piece in working),
    )  # fmt: skip


def _shares(found: Iterable[tuple[str, Piece]]) -> dict[str, Share]:
    by_name: dict[str, list[Piece]] = defaultdict(list)
    for name, piece in found:
        by_name[name].append(piece)
    shares = {
        name: Share(
            seconds=sum(one.end_s - one.start_s for one in group), launches=sum(one.launches for one in group),
            size_bytes=sum(one.size_bytes for one in group),
        )
        for name, group in by_name.items()
    }  # fmt: skip
    return dict(sorted(shares.items(), key=lambda item: -item[1].seconds))
