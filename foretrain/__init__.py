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
    from foretrain.sim.plan import Plan
    from foretrain.sim.prediction import Prediction
    from foretrain.sim.recipe import Recipe
    from foretrain.sim.simulate import simulate
    from foretrain.software.load import load_software

__all__ = [
    "Accelerator",
    "Cluster",
    "Fabric",
    "ForetrainError",
    "Model",
    "Plan",
    "Prediction",
    "Recipe",
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
    "Fabric": "foretrain.hardware.fabric",
    "ForetrainError": "foretrain.errors",
    "Model": "foretrain.models.model",
    "Plan": "foretrain.sim.plan",
    "Prediction": "foretrain.sim.prediction",
    "Recipe": "foretrain.sim.recipe",
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
