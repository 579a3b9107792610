"""Whether a machine is too busy to be measured: who else runs, what a hypervisor takes, and how far a short kernel scatters."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from foretrain.validate.measuring import host
from foretrain.validate.measuring.counters import UnavailableError
from foretrain.validate.measuring.nvml import Gpu, open_gpu
from foretrain.validate.measuring.timer import Limit, clock_of, timed
from foretrain.validate.records import Spread

MOST_OTHERS = 0.15
"""Share of the processor time that others may use."""
MOST_STOLEN = 0.02
MOST_GPU = 5
"""Percent of the time that others may keep a GPU busy."""
MOST_SPREAD = {"cpu": 0.10, "cuda": 0.05}
"""Relative quartile distance that the reference kernel may have."""
PATIENCE_S, PAUSE_S = 60.0, 3.0
"""How long a busy machine is waited for, and between two looks: as long as the load average remembers what ran before."""
REFERENCE = Limit(relative=0.0, least=20, most=100)
REFERENCE_SIDE = {"cpu": 256, "cuda": 4096}


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """Why a machine is too busy, if it is; `unknown` is what it did not tell."""

    reasons: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    facts: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.reasons)

    @property
    def text(self) -> str:
        """One line for an error or a report."""
        return "; ".join(self.reasons) if self.reasons else "quiet"


def busy(
    device: str, index: int = 0, *, library: Any = None, reference: Callable[[str], Spread] | None = None, window_s: float = 0.5
) -> Busy:
    """Return whether `device` is too busy to measure. Ask before anything runs; takes about a second."""
    reasons: list[str] = []
    unknown: list[str] = []
    facts: dict[str, float] = {}
    for look in (_processors, _queue, _gpu) if device == "cuda" else (_processors, _queue):
        try:
            reasons += look(facts, window_s, index, library)
        except UnavailableError as error:
            unknown.append(str(error))
    spread = (reference or reference_spread)(device)
    facts["reference_spread"] = spread.relative
    if spread.relative > MOST_SPREAD[device]:
        reasons.append(f"a short matrix product scatters by {spread.relative:.0%} of its time; {MOST_SPREAD[device]:.0%} is quiet")
    return Busy(reasons=tuple(reasons), unknown=tuple(unknown), facts=facts)


def settled(
    device: str, progress: Callable[[int, int, str], None] | None = None, *,
    look: Callable[[str], Busy] | None = None, patience_s: float | None = None, pause_s: float = PAUSE_S,
) -> Busy:  # fmt: skip
    """Return whether a machine is too busy to measure, having waited a while for it to become quiet: moments pass, and so do loads."""
    began_s, most_s = time.monotonic(), PATIENCE_S if patience_s is None else patience_s
    while (found := (look or busy)(device)) and (gone_s := time.monotonic() - began_s) < most_s:
        if progress is not None:
            progress(int(gone_s), int(most_s), f"waiting: {found.text}")
        time.sleep(pause_s)
    return found


def reference_spread(device: str) -> Spread:
    """Return the time of a short matrix product."""
    import torch  # noqa: PLC0415 - torch is heavy and optional

    side = REFERENCE_SIDE[device]
    left = torch.ones(side, side, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return timed(lambda: left @ left, clock=clock_of(device), limit=REFERENCE, warmup=5).seconds
    finally:
        torch.set_num_threads(threads)


def _processors(facts: dict[str, float], window_s: float, _index: int, _library: Any) -> list[str]:
    used, stolen = host.shares(window_s)
    facts.update(used=used, stolen=stolen)
    found = []
    if used > MOST_OTHERS:
        found.append(f"others use {used:.0%} of the processors; {MOST_OTHERS:.0%} is quiet: stop them, or wait")
    if stolen > MOST_STOLEN:
        found.append(f"the hypervisor takes {stolen:.0%} of the processor time; {MOST_STOLEN:.0%} is quiet: use another machine")
    return found


def _queue(facts: dict[str, float], _window_s: float, _index: int, _library: Any) -> list[str]:
    load = host.load()
    if load is None:
        raise UnavailableError("the system keeps no load average")
    facts["load"] = load
    processors = os.cpu_count() or 1  # of the whole machine, as the load is
    return [f"the load of the last minute is {load:.1f} on {processors} cores; wait for it to fall"] if load > processors else []


def _gpu(facts: dict[str, float], _window_s: float, index: int, library: Any) -> list[str]:
    gpu = open_gpu(index, library=library)
    used = int(gpu.read("nvmlDeviceGetUtilizationRates").gpu)
    others = _others(gpu)
    facts.update(gpu_used=used / 100, gpu_others=len(others))
    found = []
    if used > MOST_GPU:
        found.append(f"GPU {index} is busy {used} % of the time; {MOST_GPU} % is quiet: stop what runs there, or wait")
    if others:
        found.append(f"{len(others)} other processes hold GPU {index} (pid {', '.join(map(str, others[:5]))}); stop them, or use another")
    return found


def _others(gpu: Gpu) -> list[int]:
    """Return processes on the GPU but this one, which a container knows by another number than the driver."""
    import torch  # noqa: PLC0415

    cuda: Any = torch.cuda
    pids = [int(one.pid) for one in gpu.read("nvmlDeviceGetComputeRunningProcesses")]
    if os.getpid() in pids:
        pids.remove(os.getpid())
    elif pids and cuda.is_initialized():
        pids.pop()
    return pids
