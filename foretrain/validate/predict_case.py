"""What the simulator says to a case of the trainer: its very network, traced, under its very plan and recipe."""

from __future__ import annotations

import functools
from dataclasses import replace

from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Model
from foretrain.models.trace import from_module
from foretrain.sim.prediction import Prediction
from foretrain.sim.simulate import simulate
from foretrain.software.profile import Software
from foretrain.validate.case import Case, Net

MIXED = ("bf16", "fp16")
COMPILED = frozenset({
    "bias_gelu", "swiglu", "bias_dropout_add", "norm", "softmax", "cross_entropy", "rotary", "pointwise", "batch_norm_relu",
    "batch_norm_add_relu", "add_relu",
})  # fmt: skip
"""What torch.compile runs as one kernel."""


def predict(case: Case, cluster: Cluster, software: Software) -> Prediction:
    """Return the prediction of a case.

    A plain training loop clips no gradients unless the recipe says so. Casts of automatic mixed precision are traced where nothing is cut
    by tensor parallelism, which a cast between two layers would hide from it.

    Raises:
        ForetrainError: where the case cannot be traced or simulated.
    """
    recipe = case.recipe if case.recipe.clip is not None else replace(case.recipe, clip="none")
    autocast = recipe.precision if recipe.precision in MIXED and case.plan.tp == 1 else None
    if case.compiled:
        software = replace(software, fused=software.fused | COMPILED)
    return simulate(traced(case.net, autocast), cluster, case.plan, recipe, software=software)


def traced(net: Net, autocast: str | None = None) -> Model:
    """Return the model that a network is; equal networks are traced once."""
    return _traced(net.kind, tuple(net.sizes.items()), net.factory, net.sample_shape, net.sample_dtype, autocast)


@functools.lru_cache(maxsize=256)
def _traced(  # a network and a precision, as what can be a key
    kind: str, sizes: tuple[tuple[str, int], ...], factory: str, shape: tuple[int, ...], dtype: str, autocast: str | None
) -> Model:
    import torch  # noqa: PLC0415  # heavy, and an extra

    from foretrain.validate.training.nets import build  # noqa: PLC0415  # brings torch

    net = Net(kind=kind, sizes=dict(sizes), factory=factory, sample_shape=shape, sample_dtype=dtype)
    built = build(net, device="meta")
    inputs, _ = built.draw(2, torch.Generator())
    return from_module(built.module, inputs, loss=lambda outputs: built.loss(outputs, None), name=net.text, autocast=autocast)
