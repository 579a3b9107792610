"""Samples that a data loader makes ready: the workers of a node keep up with the step, or the step waits for them."""

from __future__ import annotations

from dataclasses import replace

from foretrain.errors import PlanError
from foretrain.sim.placement import Placement
from foretrain.sim.program import UNTIL, Instruction
from foretrain.software.profile import HostCost


def check_loader(host: HostCost) -> None:
    """Refuse facts of a loader that is never waited for.

    Raises:
        PlanError: names the one that is missing.
    """
    if not host.loader_sample_s and (host.loader_workers > 1 or not host.loader_overlapped):
        raise PlanError(
            "host.loader_workers and host.loader_overlapped say how samples are made ready, but host.loader_sample_s=0 takes them as "
            "ready; give the time of one worker for a sample, such as 5 ms"
        )


def loading_s(placement: Placement, host: HostCost, *, stage: int, replica: int, microbatches: int) -> float:
    """Return how long the workers of a node take for some micro-batches of each replica that loads there.

    A replica loads a sample once, on the first of its tensor- and context-parallel ranks.
    """
    replicas = placement.replicas_on(placement.node(stage, replica), stage, 0, 0)
    return replicas * microbatches * placement.plan.micro_batch * host.loader_sample_s / host.loader_workers


def next_step(placement: Placement, host: HostCost, *, stage: int, replica: int) -> tuple[Instruction, ...]:
    """Return the wait for the samples of the next step, which workers have made ready since this one began; none where nothing loads.

    Steps follow each other, so that each takes the longer of its own work and of the loader's.
    """
    loads = any(placement.part(stage, chunk) == 0 for chunk in range(placement.chunks))
    if not (loads and host.loader_sample_s and host.loader_overlapped):
        return ()
    seconds = loading_s(placement, host, stage=stage, replica=replica, microbatches=placement.microbatches_each)
    return (Instruction(UNTIL, seconds),)


def with_logging(host: HostCost, synced_s: float, ahead_s: float) -> HostCost:
    """Return the host's costs of the mean step, of which one in `log_every` takes `synced_s` and the logging, the others `ahead_s`."""
    return replace(host, step_s=host.step_s + (synced_s - ahead_s + host.log_s) / host.log_every)
