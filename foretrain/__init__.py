"""foretrain predicts what a training step of a large model costs before anyone rents the machines.

    import foretrain as ft
    plan, recipe = ft.Plan(dp=8, tp=8, pp=16), ft.Recipe(global_batch=1536)
    prediction = ft.simulate(ft.load_model("gpt3-175b"), ft.load_cluster("dgx-a100-80gb:128"), plan, recipe)
    prediction.step_s, prediction.energy_j, prediction.cost_usd, prediction.fits

Names are imported when they are first used, so that `import foretrain` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretrain.errors import ForetrainError
    from foretrain.hardware.accelerator import Accelerator
    from foretrain.hardware.cluster import Cluster
    from foretrain.hardware.fabric import Fabric
    from foretrain.hardware.load import load_cluster
    from foretrain.models.load import load_model
    from foretrain.models.model import Model
    from foretrain.models.trace import from_module
    from foretrain.models.traced import save_model
    from foretrain.sim.disturbance import Disturbance
    from foretrain.sim.plan import Plan
    from foretrain.sim.prediction import Prediction
    from foretrain.sim.recipe import Recipe
    from foretrain.sim.schedules.base import Schedule
    from foretrain.sim.schedules.dualpipe import DualPipe
    from foretrain.sim.schedules.dualpipe_v import DualPipeV
    from foretrain.sim.schedules.gpipe import GPipe
    from foretrain.sim.schedules.interleaved import InterleavedOneForwardOneBackward
    from foretrain.sim.schedules.interleaved_zb import InterleavedZeroBubble
    from foretrain.sim.schedules.looped_bfs import LoopedBFS
    from foretrain.sim.schedules.one_f_one_b import OneForwardOneBackward
    from foretrain.sim.schedules.zb_h1 import ZeroBubbleH1
    from foretrain.sim.schedules.zb_h2 import ZeroBubbleH2
    from foretrain.sim.schedules.zb_v import ZeroBubbleV
    from foretrain.sim.simulate import simulate
    from foretrain.software.load import load_software

__all__ = [
    "Accelerator",
    "Cluster",
    "Disturbance",
    "DualPipe",
    "DualPipeV",
    "Fabric",
    "ForetrainError",
    "GPipe",
    "InterleavedOneForwardOneBackward",
    "InterleavedZeroBubble",
    "LoopedBFS",
    "Model",
    "OneForwardOneBackward",
    "Plan",
    "Prediction",
    "Recipe",
    "Schedule",
    "ZeroBubbleH1",
    "ZeroBubbleH2",
    "ZeroBubbleV",
    "from_module",
    "load_cluster",
    "load_model",
    "load_software",
    "save_model",
    "simulate",
]

_HOME = {
    "Accelerator": "foretrain.hardware.accelerator",
    "Cluster": "foretrain.hardware.cluster",
    "Disturbance": "foretrain.sim.disturbance",
    "DualPipe": "foretrain.sim.schedules.dualpipe",
    "DualPipeV": "foretrain.sim.schedules.dualpipe_v",
    "Fabric": "foretrain.hardware.fabric",
    "ForetrainError": "foretrain.errors",
    "GPipe": "foretrain.sim.schedules.gpipe",
    "InterleavedOneForwardOneBackward": "foretrain.sim.schedules.interleaved",
    "InterleavedZeroBubble": "foretrain.sim.schedules.interleaved_zb",
    "LoopedBFS": "foretrain.sim.schedules.looped_bfs",
    "Model": "foretrain.models.model",
    "OneForwardOneBackward": "foretrain.sim.schedules.one_f_one_b",
    "Plan": "foretrain.sim.plan",
    "Prediction": "foretrain.sim.prediction",
    "Recipe": "foretrain.sim.recipe",
    "Schedule": "foretrain.sim.schedules.base",
    "ZeroBubbleH1": "foretrain.sim.schedules.zb_h1",
    "ZeroBubbleH2": "foretrain.sim.schedules.zb_h2",
    "ZeroBubbleV": "foretrain.sim.schedules.zb_v",
    "from_module": "foretrain.models.trace",
    "load_cluster": "foretrain.hardware.load",
    "load_model": "foretrain.models.load",
    "load_software": "foretrain.software.load",
    "save_model": "foretrain.models.traced",
    "simulate": "foretrain.sim.simulate",
}


def __getattr__(name: str) -> Any:
    """Return a public name, imported at its first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'foretrain' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
