"""Makes a timeline of what the engine plays."""

from __future__ import annotations

from foretrain.sim.program import CollectiveSpec, Job
from foretrain.sim.rank import Rank
from foretrain.sim.segment import DATA, Leg, Segment
from foretrain.sim.timeline import Flow, MemoryPoint, SimulatedRank, Slice, Timeline


class TimelineRecorder:
    """Collects slices, messages and memory; `static_bytes` is what each stage holds before the first pass."""

    def __init__(self, job: Job, static_bytes: tuple[float, ...], link_j_per_byte: float) -> None:
        self.job = job
        self.static_bytes = static_bytes
        self.link_j_per_byte = link_j_per_byte
        self.slices: list[Slice] = []
        self.flows: list[Flow] = []
        self.points: list[MemoryPoint] = []
        self._kinds: dict[int, str] = {}

    def piece(self, rank: Rank, leg: Leg | Segment, start_s: float, end_s: float) -> None:
        """Take one played leg or segment."""
        key = id(leg)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = max(leg.class_s, key=leg.class_s.__getitem__, default="host")
        self.slices.append(Slice(rank.index, 0, leg.name, kind, start_s, end_s - start_s, sum(leg.joules.values())))

    def transfer(self, rank: Rank, spec: CollectiveSpec, start_s: float, end_s: float) -> None:
        """Take one collective of a background stream."""
        joules = spec.cost.wire_bytes * self.link_j_per_byte
        self.slices.append(Slice(rank.index, spec.stream, spec.name, DATA, start_s, end_s - start_s, joules))

    def message(self, source: Rank, target: Rank, sent_s: float, arrived_s: float) -> None:
        """Take one point-to-point message."""
        self.flows.append(Flow(source.index, sent_s, target.index, arrived_s))

    def memory(self, rank: Rank, time_s: float) -> None:
        """Take the memory of a rank, now changed."""
        held = self.static_bytes[rank.program.stage] + rank.activations + rank.buffers
        self.points.append(MemoryPoint(rank.index, time_s, held))

    def timeline(self, step_s: float, baseline_w: float) -> Timeline:
        """Return all that was heard."""
        ranks = tuple(
            SimulatedRank(index=index, stage=program.stage, label=program.label, multiplicity=program.multiplicity)
            for index, program in enumerate(self.job.programs)
        )
        return Timeline(
            ranks=ranks, streams=self.job.streams, slices=tuple(self.slices), flows=tuple(self.flows), memory=tuple(self.points),
            step_s=step_s, baseline_w=baseline_w,
        )  # fmt: skip
