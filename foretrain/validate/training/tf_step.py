"""A training step of a case as a graph of TensorFlow under MirroredStrategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from foretrain.validate.case import Case
from foretrain.validate.training.second_nets import loss_of
from foretrain.validate.training.second_optimizers import CLIP_NORM, RULES
from foretrain.validate.training.second_weights import batch_of, drawn, weights_of
from foretrain.validate.training.tf_ops import TfOps


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """What a step changes: mirrored weights by name, what the optimizer keeps of each, and the number of steps done."""

    weights: dict[str, Any]
    kept: dict[str, tuple[Any, ...]]
    step: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A step, which returns the mean loss, and its graph."""

    step: Callable[[], Any]
    graph: Any


def graph_of(case: Case, devices: Sequence[str], *, seed: int = 0) -> Built:
    """Return the step of a case over these devices."""
    strategy = tf.distribute.MirroredStrategy(list(devices))
    with strategy.scope():
        variables = _variables(case, seed)
    batch = strategy.experimental_distribute_values_from_function(_shares(case, seed))
    of_replica = _step(case, variables)

    def step(share: Any) -> Any:
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(of_replica, args=share), axis=None)

    built = tf.function(step).get_concrete_function(batch)
    return Built(step=lambda: built(batch), graph=built.graph)


def _variables(case: Case, seed: int) -> Variables:
    rule = RULES[case.recipe.optimizer]
    values = drawn(weights_of(case.net), seed)
    return Variables(
        weights={name: tf.Variable(one) for name, one in values.items()},
        kept={name: tuple(tf.Variable(np.zeros_like(one), trainable=False) for _ in range(rule.slots)) for name, one in values.items()},
        step=tf.Variable(0.0, trainable=False),
    )


def _shares(case: Case, seed: int) -> Callable[[Any], tuple[Any, Any]]:
    """Return what gives each replica its samples, (micro-batch, sample, …): those that JAX's devices have of the same case."""
    inputs, labels = batch_of(case.net, case.recipe.global_batch, seed)
    dtype = _dtype(case) if inputs.dtype == np.float32 else tf.int32

    def share(context: Any) -> tuple[Any, Any]:
        place = context.replica_id_in_sync_group
        first, second = (one.reshape(case.microbatches, case.plan.dp, -1, *one.shape[1:])[:, place] for one in (inputs, labels))
        return tf.cast(first, dtype), tf.constant(second)

    return share


def _dtype(case: Case) -> Any:
    return tf.bfloat16 if case.recipe.precision == "bf16" else tf.float32


def _step(case: Case, variables: Variables) -> Callable[[Any, Any], Any]:
    """Return what every replica runs of a step."""
    names = list(variables.weights)

    def step(inputs: Any, labels: Any) -> Any:
        loss, gradients = _gradients(case, variables)(inputs, labels)
        context = tf.distribute.get_replica_context()
        if not case.plan.syncs_every_microbatch:
            gradients = context.all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
        if case.recipe.clip == "global":
            gradients, _ = tf.clip_by_global_norm(gradients, CLIP_NORM)
        context.merge_call(_updated, args=(case, variables, dict(zip(names, gradients, strict=True))))
        return loss

    return step


def _gradients(case: Case, variables: Variables) -> Callable[[Any, Any], tuple[Any, list[Any]]]:
    """Return the mean loss of a replica's micro-batches and its gradients."""
    loss, dtype, count = loss_of(case.net, TfOps()), _dtype(case), case.microbatches

    def of_one(inputs: Any, labels: Any) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            value = loss({name: tf.cast(one, dtype) for name, one in variables.weights.items()}, inputs, labels) / count
        gradients = tape.gradient(value, list(variables.weights.values()))
        # The rows of an embedding come as slices; replicas sum whole tables, as torch's do.
        whole = [tf.convert_to_tensor(one) for one in gradients]
        if case.plan.syncs_every_microbatch:
            whole = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, whole)
        return value, whole

    def of_all(inputs: Any, labels: Any) -> tuple[Any, list[Any]]:
        total, gradients = of_one(inputs[0], labels[0])
        for at in range(1, count):
            # One after the other, or their activations would all be alive at once.
            with tf.control_dependencies([total, *gradients]):
                value, more = of_one(tf.identity(inputs[at]), tf.identity(labels[at]))
            total, gradients = total + value, [one + other for one, other in zip(gradients, more, strict=True)]
        return total, gradients

    return of_all


def _updated(strategy: Any, case: Case, variables: Variables, gradients: dict[str, Any]) -> None:
    """Move every replica's copy of the weights."""
    rule = RULES[case.recipe.optimizer]

    def moved(weight: Any, gradient: Any, step: Any, *kept: Any) -> None:
        value, keep = rule.moved(weight, gradient, kept, step)
        weight.assign(value)
        for old, new in zip(kept, keep, strict=True):
            old.assign(new)

    strategy.extended.update(variables.step, lambda step: step.assign_add(1.0), group=False)
    for name, weight in variables.weights.items():
        strategy.extended.update(weight, moved, args=(gradients[name], variables.step, *variables.kept[name]), group=False)
