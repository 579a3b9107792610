"""One case from its weights to its record, on every process of a launch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from foretrain.validate.case import Case, case_data
from foretrain.validate.measuring.host import cpu_model
from foretrain.validate.measuring.timer import Limit
from foretrain.validate.training.collective_log import log_collectives
from foretrain.validate.training.held import most, peaks, reset_peaks
from foretrain.validate.training.peers import Peers
from foretrain.validate.training.ranks import ranks_of
from foretrain.validate.training.step import ready
from foretrain.validate.training.step_energy import energy_of
from foretrain.validate.training.timing import time_step

LOSSES = 3
"""First steps whose losses are kept; they warm up what follows."""
WARM = 2
"""Steps after those, until allocators and reducers have settled."""

LEAST = {"cpu": 2, "cuda": 5}
"""Repeats of a visit at least: a case on a CPU is visited more than once."""
KNOWN = {"cpu": 0.0, "cuda": 0.01}
"""Relative spread of the median at which repeats end: never before their time on a CPU, where what disturbs one disturbs the next."""
UNASKED = {"source": "unavailable", "reason": "not asked for; --energy measures it"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a case is measured. `limit_s` is for its repeats; `bucket_bytes` is DDP's; `trace` a folder, empty for none."""

    device: str
    limit_s: float
    bucket_bytes: float
    energy: bool = False
    trace: str = ""
    seed: int = 0


def run_case(case: Case, options: Options, peers: Peers) -> dict[str, Any]:
    """Return the data of a case's `step` record; every process of the launch calls it and gets the same, but for its own log and trace."""
    device = torch.device(options.device, torch.cuda.current_device()) if options.device == "cuda" else torch.device("cpu")
    torch.compiler.reset()  # what another case had compiled, or not
    reset_peaks(options.device)
    ranks = ranks_of(case.plan, options.device)
    training = ready(case, ranks, device, bucket_bytes=options.bucket_bytes, seed=options.seed)
    losses = [_mean(training.step(), peers) for _ in range(LOSSES)]
    for _ in range(WARM):
        training.step()
    limit = Limit(most_s=options.limit_s, relative=KNOWN[options.device], least=LEAST[options.device], most=1000)
    times = time_step(training.step, peers, options.device, limit)
    memory = most(peers.each(peaks(options.device)))
    energy = energy_of(training.step, times.step_s.median, case.plan, peers, options.device) if options.energy else UNASKED
    trace = _trace(training.step, case, options, peers)
    return {
        "case": case_data(case),
        "device": options.device,
        "device_name": _name(options.device),
        "world_size": peers.count,
        "threads": torch.get_num_threads(),
        "backend": _backend(options.device, peers),
        **times.data(),
        "losses": losses,
        "parameters": training.parameters,
        "memory": memory,
        "energy": energy,
        "trace": trace,
        "collectives": _collectives(training.step, peers),
    }


def _collectives(step: Callable[[], Any], peers: Peers) -> list[dict[str, Any]]:
    """Return what one step puts on the wire. The watch makes torch run a compiled module eagerly from then on, so it comes last."""
    if peers.count == 1:
        return []
    with log_collectives() as entries:
        step()
    return list(entries)


def _mean(losses: list[torch.Tensor], peers: Peers) -> float:
    """Return the mean over the micro-batches of all replicas; processes that hold no output know no loss."""
    found = [value for one in peers.each([float(loss) for loss in losses]) for value in one]
    return float(sum(found)) / len(found)


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else cpu_model()


def _backend(device: str, peers: Peers) -> str | None:
    return None if peers.count == 1 else "nccl" if device == "cuda" else "gloo"


def _trace(step: Callable[[], Any], case: Case, options: Options, peers: Peers) -> str | None:
    """Write one step as a Chrome trace, a file for each process, and return the first's path; null where none is asked for."""
    if not options.trace:
        return None
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if options.device == "cuda" else [])]
    with profile(activities=kinds) as found:
        step()
        if options.device == "cuda":
            torch.cuda.synchronize()
    folder = Path(options.trace)
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.=-]+", "-", case.name)
    path = folder / f"{stem}.rank{peers.rank}.json"
    found.export_chrome_trace(str(path))
    return str(folder / f"{stem}.rank0.json")
