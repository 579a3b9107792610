"""Peak memory of a stage at the moment of the peak, by component."""

from __future__ import annotations

from collections.abc import Sequence

from foretrain.sim.placement import Placement
from foretrain.sim.prediction import StageMemory
from foretrain.sim.rank import Rank
from foretrain.sim.state import StageState
from foretrain.software.profile import Software


def static_bytes(state: StageState) -> float:
    """Return what one rank holds before the first pass."""
    return state.parameter_bytes + state.gradient_bytes + state.residual_bytes + state.optimizer_bytes + state.buffer_bytes


def stage_memory(placement: Placement, states: Sequence[StageState], ranks: Sequence[Rank], software: Software) -> tuple[StageMemory, ...]:
    """Return the peak of the heaviest rank of each stage."""
    capacity = placement.cluster.accelerator.memory_bytes
    result = []
    for stage, state in enumerate(states):
        heaviest = max((rank for rank in ranks if rank.program.stage == stage), key=lambda rank: rank.peak)
        components = {
            "parameters": state.parameter_bytes,
            "gradients": state.gradient_bytes + state.residual_bytes,
            "optimizer": state.optimizer_bytes,
            # Activations that have left for the host make room below zero in the buffers.
            "activations": heaviest.peak_activations + min(0.0, heaviest.peak_buffers),
            "buffers": max(0.0, heaviest.peak_buffers) + state.buffer_bytes,
        }
        components["framework"] = sum(components.values()) * software.fragmentation + software.context_bytes
        result.append(
            StageMemory(
                stage=stage, peak_bytes=sum(components.values()), capacity_bytes=capacity, components=components,
                context_bytes=software.context_bytes,
            )
        )  # fmt: skip
    return tuple(result)
