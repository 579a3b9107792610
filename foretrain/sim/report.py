"""A prediction as plain data: the keys that `--json` prints, and one row of a table."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction, StageMemory

if TYPE_CHECKING:
    import pandas as pd

MFU_CONVENTION = (
    "model FLOPs (one multiply-add is 2, no recomputation, causal attention in full: PaLM, arXiv:2204.02311, appendix B) "
    "over dense peak; mfu_causal leaves out the masked half of attention; hfu counts what the hardware runs"
)


def prediction_to_dict(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as plain data that JSON can hold, in SI units with the unit in each key."""
    return {**_job(prediction), **_speed(prediction), **_cost(prediction), **_memory(prediction), **_parts(prediction)}


def prediction_to_frame(prediction: Prediction) -> pd.DataFrame:
    """Return a prediction as one row, nested fields under dotted names (`plan.tp`, `breakdown.math`); rows concatenate into a sweep."""
    import pandas as pd  # noqa: PLC0415  # heavy, and a prediction does not need it

    return pd.DataFrame([_flat(prediction_to_dict(prediction))])


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data: the schedule by its name, unfolded dimensions and layers as lists."""
    values = {field.name: getattr(plan, field.name) for field in fields(plan)}
    layers = None if plan.layers_per_stage is None else list(plan.layers_per_stage)
    return {**values, "schedule": plan.schedule.name, "unfold": sorted(plan.unfold), "layers_per_stage": layers}


def _job(prediction: Prediction) -> dict[str, Any]:
    return {
        "model": prediction.model,
        "cluster": prediction.cluster,
        "software": prediction.software,
        "plan": plan_to_dict(prediction.plan),
        "recipe": asdict(prediction.recipe),
        "accelerators": prediction.accelerators,
        "seq_len": prediction.seq_len,
        "image_size": prediction.image_size,
        "parameters": prediction.parameters,
        "trained_parameters": prediction.trained_parameters,
    }


def _speed(prediction: Prediction) -> dict[str, Any]:
    tokens = prediction.tokens_per_s
    return {
        "step_s": prediction.step_s,
        "jitter": None if prediction.jitter is None else prediction.jitter.to_dict(),
        "samples_per_s": prediction.samples_per_s,
        "tokens_per_s": tokens,
        "tokens_per_s_per_accelerator": tokens / prediction.accelerators if tokens is not None else None,
        "item": prediction.item,
        "mfu": prediction.mfu,
        "mfu_causal": prediction.mfu_causal,
        "hfu": prediction.hfu,
        "mfu_convention": MFU_CONVENTION,
        "model_flop": prediction.model_flop,
        "causal_flop": prediction.causal_flop,
        "hardware_flop": prediction.hardware_flop,
        "peak_flop_per_s": prediction.peak_flop_per_s,
    }


def _cost(prediction: Prediction) -> dict[str, Any]:
    return {
        "energy_j": prediction.energy_j,
        "energy_per_sample_j": prediction.energy_j / prediction.recipe.global_batch,
        "energy_per_token_j": prediction.energy_j / prediction.items if prediction.item == "token" else None,
        "energy_kwh": prediction.energy_kwh,
        "mean_power_w": prediction.mean_power_w,
        "power": dict(prediction.power),
        "clock_hz": prediction.clock_hz,
        "cost_usd": prediction.cost_usd,
        "electricity_usd": prediction.electricity_usd,
        "co2_g": prediction.co2_g,
        "grid": prediction.grid,
    }


def _memory(prediction: Prediction) -> dict[str, Any]:
    return {
        "fits": prediction.fits,
        "peak_memory_bytes": list(prediction.peak_memory_bytes),
        "memory": [_stage(stage) for stage in prediction.memory],
    }


def _stage(stage: StageMemory) -> dict[str, Any]:
    return {
        "stage": stage.stage,
        "peak_bytes": stage.peak_bytes,
        "capacity_bytes": stage.capacity_bytes,
        "components": dict(stage.components),
    }


def _parts(prediction: Prediction) -> dict[str, Any]:
    """Return where the time and the energy go. Seconds under `breakdown` sum to `step_s`, joules under `energy` to `energy_j`."""
    return {
        "breakdown": dict(prediction.breakdown),
        "hidden": dict(prediction.hidden),
        "energy": dict(prediction.energy),
        "assumed": list(prediction.assumed),
        "detail": prediction.detail,
    }


def heaviest_stage(prediction: Prediction) -> StageMemory:
    """Return the stage that comes closest to its accelerator's memory, or exceeds it most."""
    return max(prediction.memory, key=lambda stage: stage.peak_bytes / stage.capacity_bytes)


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return one level of keys; lists stay values of their cell."""
    row: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            row.update(_flat(value, f"{prefix}{key}."))
        else:
            row[prefix + key] = value
    return row
