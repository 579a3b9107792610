"""Makes a timeline of what the engine plays."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappush, heapreplace
from operator import attrgetter

from foretrain.sim.breakdown import breakdown, hidden
from foretrain.sim.program import CollectiveSpec, Job
from foretrain.sim.rank import Channel, Rank
from foretrain.sim.segment import PIPELINE, Leg, Segment
from foretrain.sim.timeline import Flow, MemoryPoint, SimulatedRank, Slice, Timeline, Transfer


class TimelineRecorder:
    """Collects slices, messages and memory; `static_bytes` is what each stage holds before the first pass."""

    def __init__(self, job: Job, static_bytes: tuple[float, ...], link_j_per_byte: float) -> None:
        self.job = job
        self.static_bytes = static_bytes
        self.link_j_per_byte = link_j_per_byte
        self.slices: list[Slice] = []
        self.sends: list[tuple[Flow, float]] = []
        self.points: list[MemoryPoint] = []
        self.transfers: list[Transfer] = []
        self._kinds: dict[int, str] = {}

    def piece(self, rank: Rank, leg: Leg | Segment, start_s: float, end_s: float) -> None:
        """Take one played leg or segment."""
        key = id(leg)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = max(leg.class_s, key=leg.class_s.__getitem__, default="host")
        launches, work = (leg.launches, leg.work) if isinstance(leg, Leg) else (0, "")
        self.slices.append(Slice(rank.index, 0, leg.name, kind, start_s, end_s - start_s, sum(leg.joules.values()), launches, work))
        if isinstance(leg, Leg) and leg.transfer is not None and leg.transfer.payload is not None:
            payload = leg.transfer.payload
            self.transfers.append(Transfer(rank.index, payload.op, leg.kind, payload.size_bytes, start_s, end_s))

    def transfer(self, rank: Rank, spec: CollectiveSpec, start_s: float, end_s: float) -> None:
        """Take one collective of a background stream."""
        joules = spec.cost.wire_bytes * self.link_j_per_byte
        self.slices.append(Slice(rank.index, spec.stream, spec.name, spec.kind, start_s, end_s - start_s, joules))
        payload = spec.cost.payload
        if payload is not None:
            self.transfers.append(Transfer(rank.index, payload.op, spec.kind, payload.size_bytes, start_s, end_s))

    def message(self, channel: Channel, sent_s: float, arrived_s: float) -> None:
        """Take one point-to-point message, now received."""
        flow = Flow(channel.source.index, sent_s, channel.target.index, arrived_s)
        self.sends.append((flow, channel.cost.wire_bytes * self.link_j_per_byte))
        size = 0.0 if channel.cost.payload is None else channel.cost.payload.size_bytes
        self.transfers.append(Transfer(flow.source_rank, "send", PIPELINE, size, sent_s, arrived_s))
        self.transfers.append(Transfer(flow.target_rank, "recv", PIPELINE, size, sent_s, arrived_s))

    def memory(self, rank: Rank, time_s: float) -> None:
        """Take the memory of a rank, now changed."""
        held = self.static_bytes[rank.program.stage] + rank.activations + rank.buffers
        self.points.append(MemoryPoint(rank.index, time_s, held))

    def timeline(self, step_s: float, baseline_w: float, played: Sequence[Rank]) -> Timeline:
        """Return all that was heard of the ranks that were played."""
        segments = self.job.segments
        ranks = tuple(
            SimulatedRank(
                index=index, stage=rank.program.stage, label=rank.program.label, multiplicity=rank.program.multiplicity,
                breakdown=breakdown([rank], segments), hidden=hidden([rank], segments),
            )
            for index, rank in enumerate(played)
        )  # fmt: skip
        self.sends.sort(key=lambda send: send[0].sent_s)
        lanes, sent = self._lanes()
        slices = sorted((*self.slices, *sent), key=attrgetter("start_s"))
        return Timeline(
            ranks=ranks, streams=self.job.streams + lanes, slices=tuple(slices), flows=tuple(flow for flow, _ in self.sends),
            memory=tuple(self.points), step_s=step_s, baseline_w=baseline_w,
            transfers=tuple(sorted(self.transfers, key=attrgetter("start_s"))),
        )  # fmt: skip

    def _lanes(self) -> tuple[tuple[str, ...], list[Slice]]:
        """Return the names of the streams of messages, and a slice for each message; a rank's that overlap lie on several streams."""
        first = len(self.job.streams)
        slices: list[Slice] = []
        busy: dict[int, list[tuple[float, int]]] = {}
        for flow, joules in self.sends:
            lanes = busy.setdefault(flow.source_rank, [])
            lane = lanes[0][1] if lanes and lanes[0][0] <= flow.sent_s else len(lanes)
            (heappush if lane == len(lanes) else heapreplace)(lanes, (flow.arrived_s, lane))
            slices.append(Slice(flow.source_rank, first + lane, "send", PIPELINE, flow.sent_s, flow.arrived_s - flow.sent_s, joules))
        most = max(map(len, busy.values()), default=0)
        return tuple("sends" if lane == 0 else f"sends {lane + 1}" for lane in range(most)), slices
