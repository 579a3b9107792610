"""How weights lie over the mesh of a plan, and what brings them together: said outright, so that the plan decides and not the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from foretrain.sim.plan import Plan
from foretrain.validate.training.second_weights import Weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one weight is cut: dimension over `tp`, dimension over `dp` (fully sharded); None where it is not."""

    tensor: int | None
    shard: int | None
    rank: int

    @property
    def spec(self) -> PartitionSpec:
        """The same as jax.sharding says it."""
        return PartitionSpec(*("tp" if at == self.tensor else "dp" if at == self.shard else None for at in range(self.rank)))


def mesh_of(plan: Plan) -> Mesh:
    """Return the first devices as dp × tp; ranks of one tensor-parallel group are neighbours."""
    devices = jax.devices()[: plan.ranks]
    return jax.make_mesh((plan.dp, plan.tp), ("dp", "tp"), devices=devices)


def places_of(weights: Mapping[str, Weight], plan: Plan) -> dict[str, Place]:
    """Return where each weight is cut. Fully sharded weights are cut along their longest dimension that dp divides, or else stay whole."""
    return {name: _place(weight, plan) for name, weight in weights.items()}


def _place(weight: Weight, plan: Plan) -> Place:
    tensor = weight.cut if plan.tp > 1 else None
    free = [at for at, size in enumerate(weight.shape) if at != tensor and size % plan.dp == 0]
    shard = max(free, key=lambda at: weight.shape[at], default=None) if plan.zero == 3 and plan.dp > 1 else None
    return Place(tensor=tensor, shard=shard, rank=len(weight.shape))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(part: Any, dimension: int, dtype: Any) -> Any:
    return lax.all_gather(part.astype(dtype), "dp", axis=dimension, tiled=True)


def _gathered_forward(part: Any, dimension: int, dtype: Any) -> tuple[Any, None]:
    return _gathered(part, dimension, dtype), None


def _gathered_backward(dimension: int, dtype: Any, _: None, gradient: Any) -> tuple[Any]:  # as jax calls it
    # Gradients add up in fp32, as those of whole weights do.
    return (lax.psum_scatter(gradient.astype(jnp.float32), "dp", scatter_dimension=dimension, tiled=True),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def needed_again(primitive: Any, *_: Any, **settings: Any) -> bool:
    """Whether backward keeps what a primitive of forward gave: all but whole weights, which it gathers again as FSDP does.

    XLA holds to that on accelerators; on processors it finds the two gathers alike and makes them one.
    """
    return not (primitive.name.startswith("custom_vjp_call") and "all_gather" in str(settings))  # that is `_gathered`


def whole(parts: Mapping[str, Any], places: Mapping[str, Place], dtype: Any) -> dict[str, Any]:
    """Return weights in the type of compute, put together over `dp`; their gradients are summed and scattered over it."""
    return {name: _whole(part, places[name], dtype) for name, part in parts.items()}


def _whole(part: Any, place: Place, dtype: Any) -> Any:
    if place.shard is None:
        return part.astype(dtype)
    return _gathered(part, place.shard, dtype)


def summed(gradients: Mapping[str, Any], places: Mapping[str, Place], plan: Plan) -> dict[str, Any]:
    """Return gradients added up over `dp`, where backward has not done so while it scattered them."""
    if plan.dp == 1:
        return dict(gradients)
    return {name: one if places[name].shard is not None else lax.psum(one, "dp") for name, one in gradients.items()}


def squared_norm(gradients: Mapping[str, Any], places: Mapping[str, Place]) -> Any:
    """Return the squared norm of all gradients over all ranks."""
    total = jnp.zeros(())
    for axes in ((), ("dp",), ("tp",), ("dp", "tp")):
        parts = [jnp.sum(jnp.square(one)) for name, one in gradients.items() if _axes(places[name]) == axes]
        if parts:
            total = total + (lax.psum(sum(parts), axes) if axes else sum(parts))
    return total


def _axes(place: Place) -> tuple[str, ...]:
    return tuple(axis for axis, at in (("dp", place.shard), ("tp", place.tensor)) if at is not None)
