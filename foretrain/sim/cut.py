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
    """Return the layers of each part of the model: as the plan counts them, else evenly.

    Where only layers + 2 divide evenly, the embedding and the head each count as one layer: that is DeepSpeed's
    `type:transformer|embedding` partition, which BLOOM-176B (70 layers, 12 stages) trained with.

    Raises:
        PlanError: where the plan's layers are not the model's, or no even cut exists; the message names what could be.
    """
    layers = [block for block, count in model.layers for _ in range(count)]
    if plan.layers_per_stage is not None:
        return _as_counted(model, plan, plan.layers_per_stage, layers)
    chunks = plan.pp * plan.vpp
    if len(layers) % chunks == 0:
        size = len(layers) // chunks
        return tuple(tuple(layers[i * size : (i + 1) * size]) for i in range(chunks))
    size = (len(layers) + 2) // chunks
    if (len(layers) + 2) % chunks == 0 and size > 1:
        edges = [0] + [(i + 1) * size - 1 for i in range(chunks - 1)] + [len(layers)]
        return tuple(tuple(layers[a:b]) for a, b in pairwise(edges))
    raise PlanError(
        f"pp={plan.pp} × vpp={plan.vpp} does not divide the {len(layers)} layers of {model.name}; use {_other_cuts(plan, len(layers))}"
    )


def _as_counted(model: Model, plan: Plan, counts: tuple[int, ...], layers: list[Block]) -> Parts:
    given = f"layers_per_stage={','.join(map(str, counts))}"
    chunks = plan.pp * plan.vpp
    even = _evened([len(layers) // chunks] * chunks, len(layers))
    if len(counts) != chunks:
        raise PlanError(f"{given} counts {len(counts)} chunks, but pp={plan.pp} × vpp={plan.vpp} has {chunks}; give a number each: {even}")
    for part, count in enumerate(counts):
        ends = (part == 0 and model.prologue) or (part == chunks - 1 and model.epilogue)
        if count < (0 if ends else 1):
            raise PlanError(f"{given} leaves chunk {part} of {chunks} without work; give it at least one layer, such as {even}")
    if sum(counts) != len(layers):
        nearest = _evened(list(counts), len(layers))
        raise PlanError(f"{given} is {sum(counts)} layers, but {model.name} has {len(layers)}; nearest that fits: {nearest}")
    edges = [sum(counts[:part]) for part in range(chunks + 1)]
    return tuple(tuple(layers[a:b]) for a, b in pairwise(edges))


def _evened(counts: list[int], layers: int) -> str:
    """Return counts that sum to the layers, each a share of the difference away from `counts`, as they are written."""
    share, rest = divmod(layers - sum(counts), len(counts))
    counts = [max(1, count + share + (part < rest)) for part, count in enumerate(counts)]
    while sum(counts) > layers and max(counts) > 1:
        counts[counts.index(max(counts))] -= 1
    return ",".join(map(str, counts))


def _other_cuts(plan: Plan, layers: int) -> str:
    """Return the degrees that would cut the layers: pp at this vpp, else vpp at this pp."""
    stages = [d // plan.vpp for d in divisors(layers) if d % plan.vpp == 0]
    if stages:
        return f"pp of {closest(plan.pp, stages)}"
    if plan.pp in divisors(layers):
        return f"vpp of {closest(plan.vpp, divisors(layers // plan.pp))}"
    return f"pp of {closest(plan.pp, divisors(layers))} with vpp=1"
