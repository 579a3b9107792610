"""Predictions to compare with, small and quick."""

from __future__ import annotations

from dataclasses import replace

from foretrain.hardware.load import load_cluster
from foretrain.models.load import load_model
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software


def predicted(plan: Plan, *, software: str = "pytorch-eager", detail: str = "segment", batch: int | None = None) -> Prediction:
    """Return the prediction of a plan for GPT-2 on one node."""
    size = plan.dp * plan.micro_batch * max(1, plan.pp)
    recipe = Recipe(global_batch=batch or size, seq_len=128)
    return simulate(load_model("gpt2"), load_cluster("dgx-a100-80gb:1"), plan, recipe, software=load_software(software), detail=detail)


def lasting(prediction: Prediction, step_s: float) -> Prediction:
    """Return a prediction whose step takes so long."""
    return replace(prediction, step_s=step_s)
