"""Jobs made by hand: pipelines of given passes, and ranks that run given instructions."""

from __future__ import annotations

from collections.abc import Sequence

from foretrain.sim.collectives import NOTHING, TransferCost
from foretrain.sim.program import COMPUTE, RECEIVE, SEND, ChannelSpec, CollectiveSpec, Instruction, Job, Program, Repeat
from foretrain.sim.schedules.base import FORWARD, Schedule
from foretrain.sim.segment import MATH, Leg, Segment, SegmentBook

Segments = list[tuple[Segment, Segment]]
Ends = dict[tuple[int, int], int]
STREAMS = ("compute", "data parallel", "other groups")


def transfer(seconds: float, *, latency_s: float = 0.0, port: float = 0.0, network: float = 0.0, wire_bytes: float = 1.0) -> TransferCost:
    """Return a transfer that lasts `latency_s + seconds` alone and asks for these rates meanwhile."""
    return TransferCost(latency_s=latency_s, full_s=seconds, port_bytes_per_s=port, network_bytes_per_s=network, wire_bytes=wire_bytes)


def kernels(*kernels_s: tuple[float, float], kind: str = MATH) -> tuple[Leg, ...]:
    """Return legs of (device seconds, launch seconds) each; a kernel starts when it is issued and the device is free."""
    return tuple(
        Leg(
            name=f"kernel {number}", device_s=device_s, lead_s=launch_s + device_s, launch_s=launch_s,
            class_s={kind: device_s}, joules={"math": device_s, "busy": 0.5 * device_s}, flop=device_s,
        )
        for number, (device_s, launch_s) in enumerate(kernels_s)
    )  # fmt: skip


def program(stage: int, *repeats: Repeat, node: int = 0, flows: int = 1) -> Program:
    """Return a rank that plays these bodies."""
    return Program(stage=stage, replica=0, multiplicity=1, node=node, flows=flows, label=f"stage {stage}", repeats=repeats)


def once(*instructions: tuple[int, object]) -> Repeat:
    """Return a body that is played once."""
    return Repeat(tuple(Instruction(opcode, operand) for opcode, operand in instructions), 1)


def job(
    programs: Sequence[Program], book: SegmentBook, *, channels: Sequence[ChannelSpec] = (), collectives: Sequence[CollectiveSpec] = (),
    port: float = 1.0, network: float = 1.0, overlap_loss: float = 0.0, queue_depth_s: float = 10.0,
) -> Job:  # fmt: skip
    """Return a job of these parts; its links carry one byte per second."""
    return Job(
        programs=tuple(programs), segments=tuple(book.segments), channels=tuple(channels), collectives=tuple(collectives),
        streams=STREAMS, port_bytes_per_s=port, network_bytes_per_s=network, overlap_loss=overlap_loss, queue_depth_s=queue_depth_s,
    )  # fmt: skip


class Pipeline:
    """A pipeline of passes of given length, one node per stage."""

    def __init__(self, schedule: Schedule, *, stages: int, microbatches: int, chunks: int = 1) -> None:
        self.schedule, self.stages, self.microbatches, self.chunks = schedule, stages, microbatches, chunks
        self.book = SegmentBook()
        self.channels: list[ChannelSpec] = []
        self.message = NOTHING
        self.send = SEND
        self.host_s = 0.0

    def job(self, passes: Sequence[tuple[float, float]]) -> Job:
        """Return the job whose virtual stage i takes (forward, backward) seconds `passes[i]`; virtual stage i sits on i mod stages."""
        segments = [(self._segment("forward", f, 1.0), self._segment("backward", b, -1.0)) for f, b in passes]
        into: Ends = {}
        out: Ends = {}
        for kind, step in ((FORWARD, 1), (1 - FORWARD, -1)):
            for virtual in range(len(passes)):
                if 0 <= virtual + step < len(passes):
                    into[kind, virtual + step] = out[kind, virtual] = len(self.channels)
                    ends = virtual % self.stages, (virtual + step) % self.stages
                    self.channels.append(ChannelSpec(source=ends[0], target=ends[1], cost=self.message))
        programs = [self._program(stage, segments, into, out) for stage in range(self.stages)]
        return job(programs, self.book, channels=self.channels)

    def _segment(self, name: str, seconds: float, held: float) -> Segment:
        legs = kernels((0.5 * seconds, self.host_s), (0.5 * seconds, self.host_s))
        return self.book.add(name, legs, legs, peak_bytes=max(0.0, held), delta_bytes=held)

    def _program(self, stage: int, segments: Segments, into: Ends, out: Ends) -> Program:
        order = self.schedule.order(stage=stage, stages=self.stages, chunks=self.chunks, microbatches=self.microbatches)
        repeats = []
        for run in order:
            body: list[Instruction] = []
            for action in run.body:
                virtual = action.chunk * self.stages + stage
                if (action.kind, virtual) in into:
                    body.append(Instruction(RECEIVE, into[action.kind, virtual]))
                body.append(Instruction(COMPUTE, segments[virtual][action.kind]))
                if (action.kind, virtual) in out:
                    body.append(Instruction(self.send, out[action.kind, virtual]))
            repeats.append(Repeat(tuple(body), run.repeat))
        return program(stage, *repeats, node=stage)
