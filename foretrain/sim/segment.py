"""Work between two synchronisation points, composed exactly in the max-plus algebra.

The host issues kernel i at h + l_1 + … + l_i and the device starts it then or when it is free, whichever is later. A run of
kernels with device times d_i and issue times l_i therefore ends at

    max(device + D, host + A),   D = Σ d_i,   A = max_i (Σ_{j≤i} l_j + Σ_{j≥i} d_j),

and the host is free at host + L, L = Σ l_j. Two runs compose as D = D1 + D2, L = L1 + L2, A = max(A1 + D2, L1 + A2), so a segment of
hundreds of kernels is three numbers, exact.

**Source:** Baccelli, Cohen, Olsder, Quadrat, Synchronization and Linearity (1992), chapter 2 (max-plus recursions of event graphs).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from foretrain.sim.collectives import TransferCost

MATH, MEMORY, OVERHEAD, TENSOR, OPTIMIZER, HOST = "math", "memory", "overhead", "tensor_parallel", "optimizer", "host"
PIPELINE, DATA, BUBBLE = "pipeline_parallel", "data_parallel", "bubble"
CONTEXT, EXPERT = "context_parallel", "expert_parallel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """Kernels in a row, or one inline collective (`transfer` is then its cost).

    `device_s`, `lead_s`, `launch_s` are D, A and L above; `class_s` splits `device_s` by breakdown class; `joules` by energy part.
    `kind` is the class of the time beyond its own that a transfer takes; `hidden_s`, by class, is communication that this leg hides
    by construction. `launches` counts kernels, and `work` says what they are (gemm, convolution, attention, stream) where they are alike.
    """

    name: str
    device_s: float
    lead_s: float
    launch_s: float
    class_s: dict[str, float]
    joules: dict[str, float]
    flop: float = 0.0
    transfer: TransferCost | None = None
    kind: str = TENSOR
    hidden_s: Mapping[str, float] = field(default_factory=dict)
    launches: int = 0
    work: str = ""

    @property
    def working(self) -> float:
        """The share of D in which the device works rather than waits for the host."""
        return 1.0 - self.class_s.get(HOST, 0.0) / self.device_s if self.device_s > 0.0 else 0.0


@dataclass(slots=True, eq=False)
class Segment:
    """Legs that run back to back on one rank. `ops` are the same legs kernel by kernel.

    `peak_bytes` and `delta_bytes` are activation memory relative to the start: the highest point, and what is left at the end.
    `on_port` and `on_network` say whether inline collectives use the rank's port and its node's NICs; `clock_hz` is the clock that
    the compute units run at (0 where the profile has none).
    """

    name: str
    index: int
    legs: tuple[Leg, ...]
    ops: tuple[Leg, ...]
    device_s: float
    lead_s: float
    launch_s: float
    class_s: dict[str, float]
    joules: dict[str, float]
    flop: float
    hidden_s: Mapping[str, float]
    peak_bytes: float
    delta_bytes: float
    on_port: bool
    on_network: bool
    clock_hz: float = 0.0


def joined(legs: Sequence[Leg], name: str) -> Leg:
    """Return the max-plus composition of legs as one leg."""
    device = lead = launch = flop = 0.0
    for leg in legs:
        lead = max(lead + leg.device_s, launch + leg.lead_s)
        device += leg.device_s
        launch += leg.launch_s
        flop += leg.flop
    return Leg(
        name=name, device_s=device, lead_s=lead, launch_s=launch, flop=flop,
        hidden_s=_summed(leg.hidden_s for leg in legs if leg.hidden_s),
        class_s=_summed(leg.class_s for leg in legs), joules=_summed(leg.joules for leg in legs),
        launches=sum(leg.launches for leg in legs),
    )  # fmt: skip


def merged(legs: Iterable[Leg], name: str) -> tuple[Leg, ...]:
    """Return the legs with every run of compute joined into one; collectives stay apart."""
    result: list[Leg] = []
    run: list[Leg] = []
    for leg in legs:
        if leg.transfer is None:
            run.append(leg)
            continue
        if run:
            result.append(joined(run, name) if len(run) > 1 else run[0])
            run = []
        result.append(leg)
    if run:
        result.append(joined(run, name) if len(run) > 1 else run[0])
    return tuple(result)


def _summed(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return total


class SegmentBook:
    """Makes segments and numbers them, so that a rank counts executions in a list."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []

    def add(
        self, name: str, legs: tuple[Leg, ...], ops: tuple[Leg, ...], *,
        peak_bytes: float = 0.0, delta_bytes: float = 0.0, clock_hz: float = 0.0,
    ) -> Segment:  # fmt: skip
        """Return a new numbered segment of `legs` (merged here as far as they can be) and `ops` (the same, kernel by kernel)."""
        legs = merged(legs, name)
        whole = joined(legs, name)
        segment = Segment(
            name=name, index=len(self.segments), legs=legs, ops=ops, device_s=whole.device_s, lead_s=whole.lead_s,
            launch_s=whole.launch_s, class_s=whole.class_s, joules=whole.joules, flop=whole.flop, hidden_s=whole.hidden_s,
            peak_bytes=peak_bytes, delta_bytes=delta_bytes, clock_hz=clock_hz,
            on_port=any(leg.transfer.port_bytes_per_s > 0.0 for leg in legs if leg.transfer is not None),
            on_network=any(leg.transfer.network_bytes_per_s > 0.0 for leg in legs if leg.transfer is not None),
        )  # fmt: skip
        self.segments.append(segment)
        return segment
