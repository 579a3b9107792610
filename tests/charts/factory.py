"""Hand-built predictions and timelines: small jobs whose every number can be worked out on paper."""

from __future__ import annotations

from typing import Any

from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction, StageMemory
from foretrain.sim.recipe import Recipe
from foretrain.sim.timeline import Flow, MemoryPoint, SimulatedRank, Slice, Timeline

GIGA = 1e9


def stage_memory(stage: int, *, activations_bytes: float = 20 * GIGA) -> StageMemory:
    """Return a stage of an 80 GB accelerator that holds 40 GB beside its activations."""
    components = {
        "parameters": 10 * GIGA, "gradients": 10 * GIGA, "optimizer": 15 * GIGA,
        "activations": activations_bytes, "buffers": 2 * GIGA, "framework": 3 * GIGA,
    }
    return StageMemory(stage=stage, peak_bytes=sum(components.values()), capacity_bytes=80 * GIGA, components=components, context_bytes=0.0)


def gantt_timeline(*, stages: int = 4, microbatches: int = 8, slot_s: float = 1.0) -> Timeline:
    """Return GPipe with equal stages: every forward, then every backward, a send of a tenth of a slot beside each, then the optimizer."""
    slices: list[Slice] = []
    for stage in range(stages):
        for kind, name, start in (("math", "forward", stage), ("math", "backward", 2 * stages - 2 - stage + microbatches)):
            for index in range(microbatches):
                begin = (start + index) * slot_s
                slices.append(Slice(stage, 0, f"{name} {index}", kind, begin, slot_s, 1.0))
                slices.append(Slice(stage, 1, "send", "pipeline_parallel", begin + 0.9 * slot_s, 0.1 * slot_s, 0.1))
        slices.append(Slice(stage, 0, "optimizer", "optimizer", (2 * microbatches + 2 * stages - 2) * slot_s, slot_s, 1.0))
    slices.sort(key=lambda piece: piece.start_s)
    ranks = tuple(SimulatedRank(index=s, stage=s, label=f"stage {s}", multiplicity=8) for s in range(stages))
    return Timeline(
        ranks=ranks, streams=("compute", "pipeline"), slices=tuple(slices),
        flows=(Flow(0, slot_s, 1, slot_s),), memory=(MemoryPoint(0, 0.0, GIGA),),
        step_s=(2 * microbatches + 2 * stages - 1) * slot_s, baseline_w=100.0,
    )


def prediction(**changes: Any) -> Prediction:
    """Return a step of 10 s on 64 accelerators of 100 TFLOP/s: MFU 50 %, HFU 60 %, 1 MJ, 8 kUSD, 4 stages that fit."""
    values: dict[str, Any] = {
        "model": "gpt-test", "cluster": "dgx-test:8", "software": "test framework",
        "plan": Plan(dp=2, tp=8, pp=4), "recipe": Recipe(global_batch=64), "accelerators": 64, "seq_len": 1000, "parameters": 10**10,
        "step_s": 10.0, "model_flop": 3.2e16, "causal_flop": 3.0e16, "hardware_flop": 3.84e16, "peak_flop_per_s": 64e14,
        "energy": {"idle": 2e5, "host": 1e5, "math": 5e5, "memory": 1e5, "facility": 1e5},
        "cost_usd": 8.0, "electricity_usd": 0.1, "co2_g": 100.0,
        "memory": tuple(stage_memory(s, activations_bytes=(20 - 4 * s) * GIGA) for s in range(4)),
        "breakdown": {"math": 6.0, "memory": 1.0, "overhead": 0.1, "tensor_parallel": 1.0, "pipeline_parallel": 0.2,
                      "data_parallel": 0.3, "bubble": 1.0, "optimizer": 0.3, "host": 0.1},
        "hidden": {"data_parallel": 0.5}, "assumed": ("cluster: price per node-hour",), "detail": "segment",
        "replay": lambda detail: gantt_timeline(),
    }
    return Prediction(**{**values, **changes})
