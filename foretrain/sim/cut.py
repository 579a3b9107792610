"""How the layers of a model are cut over the chunks of a pipeline."""

from __future__ import annotations

from itertools import pairwise

from foretrain.errors import PlanError
from foretrain.models.model import Block, Model
from foretrain.sim.plan import Plan

Parts = tuple[tuple[Block, ...], ...]
"""Layers of each part of the model, in its order."""


def divisors(number: int) -> list[int]:
    """Return all divisors in rising order."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def closest(wanted: int, options: list[int], count: int = 4) -> str:
    """Return the options nearest to what was asked, in rising order, for a message."""
    return ", ".join(str(option) for option in sorted(sorted(options, key=lambda option: abs(option - wanted))[:count]))


def cut(model: Model, plan: Plan) -> Parts:
    """Return the layers of each part of the model, cut evenly.

    Where only layers + 2 divide evenly, the embedding and the head each count as one layer: that is DeepSpeed's
    `type:transformer|embedding` partition, which BLOOM-176B (70 layers, 12 stages) trained with.

    Raises:
        PlanError: where no even cut exists; the message names what could be.
    """
    layers = [block for block, count in model.layers for _ in range(count)]
    chunks = plan.pp * plan.vpp
    if len(layers) % chunks == 0:
        size = len(layers) // chunks
        return tuple(tuple(layers[i * size : (i + 1) * size]) for i in range(chunks))
    size = (len(layers) + 2) // chunks
    if (len(layers) + 2) % chunks == 0 and size > 1:
        edges = [0] + [(i + 1) * size - 1 for i in range(chunks - 1)] + [len(layers)]
        return tuple(tuple(layers[a:b]) for a, b in pairwise(edges))
    if chunks > len(layers) and "pipeline" in model.uncut:
        raise PlanError(f"pp={plan.pp} × vpp={plan.vpp}, but {model.name} is one unit: {model.uncut['pipeline']}; use pp=1 with more dp")
    raise PlanError(
        f"pp={plan.pp} × vpp={plan.vpp} does not divide the {len(layers)} layers of {model.name}; use {_other_cuts(plan, len(layers))}"
    )


def _other_cuts(plan: Plan, layers: int) -> str:
    """Return the degrees that would cut the layers: pp at this vpp, else vpp at this pp."""
    stages = [d // plan.vpp for d in divisors(layers) if d % plan.vpp == 0]
    if stages:
        return f"pp of {closest(plan.pp, stages)}"
    if plan.pp in divisors(layers):
        return f"vpp of {closest(plan.vpp, divisors(layers // plan.pp))}"
    return f"pp of {closest(plan.pp, divisors(layers))} with vpp=1"
