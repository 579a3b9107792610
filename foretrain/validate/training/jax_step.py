"""A training step of a case as one program of XLA, over the local devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from foretrain.validate.case import Case
from foretrain.validate.training.jax_layout import Place, mesh_of, needed_again, places_of, squared_norm, summed, whole
from foretrain.validate.training.jax_ops import JaxOps
from foretrain.validate.training.second_nets import loss_of
from foretrain.validate.training.second_optimizers import CLIP_NORM, RULES
from foretrain.validate.training.second_weights import batch_of, drawn, weights_of

BATCH = PartitionSpec(None, "dp")
"""(micro-batch, sample, …): samples lie over the replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a step changes: weights, what the optimizer keeps of them, and the number of steps done."""

    weights: dict[str, Any]
    kept: dict[str, tuple[Any, ...]]
    step: Any


jax.tree_util.register_dataclass(State, data_fields=["weights", "kept", "step"], meta_fields=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A compiled step, what it starts from, and its batch: `step(state, *batch)` returns the next state and the mean loss."""

    step: Any
    state: State
    batch: tuple[Any, Any]


def program_of(case: Case, *, seed: int = 0) -> Callable[[], Program]:
    """Return what compiles the step of a case; weights and batch are on the devices already."""
    mesh = mesh_of(case.plan)
    weights = weights_of(case.net)
    places = places_of(weights, case.plan)
    state = _state(case, mesh, drawn(weights, seed), places)
    batch = _batch(case, mesh, seed)
    specs = jax.tree.map(lambda one: one.sharding.spec, state)
    step = jax.shard_map(
        _step(case, places), mesh=mesh, in_specs=(specs, BATCH, BATCH), out_specs=(specs, PartitionSpec()), check_vma=False
    )  # fmt: skip
    lowered = jax.jit(step, donate_argnums=0).lower(state, *batch)
    return lambda: Program(step=lowered.compile(), state=state, batch=batch)


def _state(case: Case, mesh: Mesh, weights: Mapping[str, Any], places: Mapping[str, Place]) -> State:
    rule = RULES[case.recipe.optimizer]

    def put(name: str, values: Any) -> Any:
        return jax.device_put(values, NamedSharding(mesh, places[name].spec))

    return State(
        weights={name: put(name, one) for name, one in weights.items()},
        kept={name: tuple(put(name, np.zeros_like(one)) for _ in range(rule.slots)) for name, one in weights.items()},
        step=jax.device_put(np.float32(0), NamedSharding(mesh, PartitionSpec())),
    )


def _batch(case: Case, mesh: Mesh, seed: int) -> tuple[Any, Any]:
    inputs, labels = batch_of(case.net, case.recipe.global_batch, seed)
    inputs, labels = (one.reshape(case.microbatches, -1, *one.shape[1:]) for one in (inputs, labels))
    kind = _dtype(case) if inputs.dtype == np.float32 else inputs.dtype
    sharding = NamedSharding(mesh, BATCH)
    return jax.device_put(inputs.astype(kind), sharding), jax.device_put(labels, sharding)


def _dtype(case: Case) -> Any:
    return jnp.bfloat16 if case.recipe.precision == "bf16" else jnp.float32


def _step(case: Case, places: Mapping[str, Place]) -> Callable[[State, Any, Any], tuple[State, Any]]:
    """Return what every device runs of a step."""
    rule, plan = RULES[case.recipe.optimizer], case.plan

    def step(state: State, inputs: Any, labels: Any) -> tuple[State, Any]:
        loss, gradients = _gradients(case, places)(state.weights, inputs, labels)
        done = state.step + 1
        if not plan.syncs_every_microbatch:
            gradients = summed(gradients, places, plan)
        if case.recipe.clip == "global":
            scale = jnp.minimum(1.0, CLIP_NORM / (jnp.sqrt(squared_norm(gradients, places)) + 1e-6))
            gradients = jax.tree.map(lambda one: one * scale, gradients)
        moved = {name: rule.moved(one, gradients[name], state.kept[name], done) for name, one in state.weights.items()}
        weights, kept = ({name: pair[at] for name, pair in moved.items()} for at in (0, 1))
        return State(weights=weights, kept=kept, step=done), lax.pmean(loss, "dp") if plan.dp > 1 else loss

    return step


def _gradients(case: Case, places: Mapping[str, Place]) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """Return the mean loss of a device's micro-batches and its share of the gradients of the mean over all of them."""
    plan, count = case.plan, case.microbatches
    loss = loss_of(case.net, JaxOps(cut=plan.tp > 1))
    dtype = _dtype(case)

    def local(parts: Any, inputs: Any, labels: Any) -> Any:
        return loss(whole(parts, places, dtype), inputs, labels) / (count * plan.dp)

    if plan.zero == 3:
        local = jax.checkpoint(local, policy=needed_again)

    def of_one(parts: Any, inputs: Any, labels: Any) -> Any:
        if plan.zero == 3 and count > 1:
            # Else XLA gathers before the loop of micro-batches, and keeps whole weights all through it.
            parts, inputs = lax.optimization_barrier((parts, inputs))
        value, gradients = jax.value_and_grad(local)(parts, inputs, labels)
        return value * plan.dp, summed(gradients, places, plan) if plan.syncs_every_microbatch else gradients

    def of_all(parts: Any, inputs: Any, labels: Any) -> Any:
        if count == 1:
            return of_one(parts, inputs[0], labels[0])
        start = jnp.zeros(()), jax.tree.map(jnp.zeros_like, parts)
        return lax.scan(lambda total, one: (jax.tree.map(jnp.add, total, of_one(parts, *one)), None), start, (inputs, labels))[0]

    return of_all
