"""What a plan must agree on with a model, a cluster and a recipe before it is placed."""

from __future__ import annotations

from math import prod

from foretrain.errors import ModelError, PlanError
from foretrain.hardware.cluster import Cluster
from foretrain.models.matmul import Linear
from foretrain.models.model import Model
from foretrain.sim.cut import closest, divisors
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.replication import ALL_REDUCE
from foretrain.sim.schedules.base import INPUT
from foretrain.sim.spread import check_context, check_experts

LARGEST_UNFOLDED = 2**15
"""Ranks that are played one by one at most: about a minute."""


def check(model: Model, cluster: Cluster, plan: Plan) -> None:
    """Refuse degrees that do not fit the cluster or do not divide the model.

    Raises:
        PlanError: naming the degrees that would.
    """
    _check_size(cluster, plan)
    if plan.pp * plan.vpp > 1 and "pipeline" in model.uncut:
        degrees = f"pp={plan.pp} × vpp={plan.vpp}"
        raise PlanError(f"{degrees}, but {model.name} is one unit: {model.uncut['pipeline']}; use pp=1 with more dp or tp")
    _check_unfolding(plan)
    _check_tensor(model, plan)
    _check_sharding(plan)
    _check_experts(plan)
    _check_sequences(plan)
    check_context(model, plan)
    check_experts(model, plan)
    _check_order(cluster, plan)
    _check_copies(plan)


def _check_size(cluster: Cluster, plan: Plan) -> None:
    if plan.ranks > cluster.accelerators:
        per_node = cluster.node.accelerators
        raise PlanError(
            f"{_degrees(plan)} needs {plan.ranks} accelerators, but {cluster.name} has "
            f"{cluster.accelerators}; use at least {-(-plan.ranks // per_node)} nodes or smaller degrees"
        )
    if cluster.scale_out.topology == "none" and plan.ranks > cluster.domain:
        raise PlanError(
            f"{_degrees(plan)} is {plan.ranks} accelerators, but {cluster.name} has no network beyond "
            f"{cluster.domain} (scale_out topology none); use smaller degrees, or give it a network"
        )


def _degrees(plan: Plan) -> str:
    return f"dp={plan.dp} × tp={plan.tp} × pp={plan.pp}" + (f" × cp={plan.cp}" if plan.cp > 1 else "")


def _check_unfolding(plan: Plan) -> None:
    """Refuse to play more ranks one by one than memory and patience hold."""
    played = plan.pp * prod(getattr(plan, name) for name in plan.unfold)
    if plan.unfold and played > LARGEST_UNFOLDED:
        raise PlanError(
            f"unfold={','.join(sorted(plan.unfold))} would play {played:,} ranks one by one, above {LARGEST_UNFOLDED:,}; "
            "leave it out (ranks that are alike are played once, with the same result) or use smaller degrees"
        )


def _check_tensor(model: Model, plan: Plan) -> None:
    if plan.sequence_parallel and plan.tp == 1:
        raise PlanError("sequence_parallel cuts along the tensor-parallel group, but tp=1; raise tp or leave it off")
    if plan.tp > 1 and not model.tensor_dims:
        why = f" ({model.uncut['tensor']})" if "tensor" in model.uncut else ""
        raise PlanError(
            f"tp={plan.tp}, but {model.name} has no products that tensor parallelism could cut{why}; use tp=1 with more dp or pp"
        )
    for name, size in model.tensor_dims.items():
        if size % plan.tp:
            options = closest(plan.tp, divisors(size))
            raise PlanError(f"tp={plan.tp} does not divide the {size} {name} of {model.name}; use one of {options}")
    if plan.sequence_parallel and model.seq_len is None:
        raise PlanError(f"sequence_parallel cuts sequences, but {model.name} trains on {model.item}s; leave it off")
    if plan.sequence_parallel and model.seq_len is not None and model.seq_len % plan.tp:
        low = model.seq_len // plan.tp * plan.tp
        raise PlanError(
            f"tp={plan.tp} does not divide the sequence of {model.seq_len} that sequence_parallel cuts; "
            f"use sequences of {f'{low} or ' if low else ''}{low + plan.tp}, or leave it off"
        )


def _check_experts(plan: Plan) -> None:
    """Refuse what is reckoned for replicas that all hold the same parameters, where experts are spread over them."""
    if plan.ep == 1:
        return
    given = {
        f"gradient_compression={plan.gradient_compression}": plan.gradient_compression is not None,
        f"replication={plan.replication}": plan.replication != ALL_REDUCE,
    }  # fmt: skip
    wrong = next((name for name, is_given in given.items() if is_given), None)
    if wrong is not None:
        raise PlanError(f"{wrong} and ep={plan.ep}: this way of keeping replicas alike takes no experts that they do not share; use ep=1")


def _check_sequences(plan: Plan) -> None:
    """Refuse what is reckoned for replicas of whole sequences, where context parallelism cuts them."""
    if plan.cp > 1 and plan.replication != ALL_REDUCE:
        raise PlanError(f"replication={plan.replication} and cp={plan.cp}: ranks of one sequence must meet in every step; use cp=1")


def _check_sharding(plan: Plan) -> None:
    if plan.shard is None:
        return
    if plan.zero == 0:
        raise PlanError(f"shard={plan.shard} needs something to shard, but zero=0; use zero 1, 2 or 3")
    if plan.shard < 1 or plan.copies % plan.shard:
        over = f"dp={plan.dp}" + (f" × cp={plan.cp}" if plan.cp > 1 else "")
        raise PlanError(f"shard={plan.shard} does not divide {over}; use one of {closest(plan.shard, divisors(plan.copies))}")


def _check_order(cluster: Cluster, plan: Plan) -> None:
    """Refuse an order that puts ranks of a replica, or of a group that meets in every layer, at unlike places."""
    domain, strides = cluster.node.scale_up.domain, plan.strides
    joined = plan.cp > 1 or plan.ep > 1
    if not joined and (plan.tp == 1 or strides["tp"] == 1):
        return
    blocks = [*strides.values(), *((min(strides["cp"], strides["dp"]) * plan.ep,) if plan.ep > 1 else ())]
    straddling = [block for block in blocks if block < plan.ranks and not aligned(block, domain)]
    if straddling and joined:
        raise PlanError(
            f"{_degrees(plan)}{f' × ep={plan.ep}' if plan.ep > 1 else ''} puts ranks in blocks of {straddling[0]}, which straddle "
            f"scale-up domains of {domain}; use degrees whose products divide {domain} or are multiples of it"
        )
    if straddling:
        raise PlanError(
            f"order={plan.order} numbers ranks in blocks of {straddling[0]}, which straddle scale-up domains of {domain}, so that the "
            f"{plan.tp} tensor-parallel ranks of a replica would lie unlike; use an order that begins with tp, or degrees whose products "
            f"divide {domain} or are multiples of it"
        )


def _check_copies(plan: Plan) -> None:
    """Refuse two copies of the model in a pipeline, which add up their gradients in every step, where replicas do not."""
    if plan.replication != ALL_REDUCE and len(plan.schedule.seats.lines(stages=plan.pp, chunks=plan.vpp)) > 1:
        raise PlanError(
            f"schedule {plan.schedule.name} keeps two copies of the model, which reduce gradients in every step, but "
            f"replication={plan.replication} does not; use schedule dualpipe-v, or replication {ALL_REDUCE}"
        )


def aligned(block: int, domain: int) -> bool:
    """Return whether blocks of so many ranks, one after another, all lie alike over the scale-up domains."""
    return block % domain == 0 or domain % block == 0


def microbatches_of(plan: Plan, recipe: Recipe) -> int:
    """Return the micro-batches of a step on each replica.

    Raises:
        PlanError: where the batch does not divide; the message names the nearest that do.
    """
    samples = plan.dp * plan.micro_batch
    if recipe.global_batch % samples:
        low = recipe.global_batch // samples * samples
        raise PlanError(
            f"global batch {recipe.global_batch} is not a multiple of dp={plan.dp} × micro-batch {plan.micro_batch}; "
            f"use {f'{low} or ' if low else ''}{low + samples}"
        )
    return recipe.global_batch // samples


def check_deferral(model: Model, plan: Plan, last: int, microbatches: int) -> None:
    """Refuse to defer gradients of an output layer that does not wait for other stages, or where the schedule splits backward itself.

    `last` is the stage that holds the end of the model.

    Raises:
        PlanError: with the reason.
    """
    if not plan.defer_embedding_wgrad:
        return
    option = "defer_embedding_wgrad leaves the output layer's gradient to the end of the pipeline, but"
    if plan.pp == 1:
        raise PlanError(f"{option} pp=1 has none; raise pp or leave it off")
    if plan.zero >= 2:
        raise PlanError(f"{option} zero={plan.zero} reduces every gradient as it comes; use zero 0 or 1, or leave it off")
    if plan.syncs_every_microbatch:
        raise PlanError(f"{option} gradient_sync={plan.gradient_sync} reduces every gradient as it comes; leave out one of them")
    if not any(isinstance(op, Linear) and op.trained for block in model.epilogue for op in block.ops):
        raise PlanError(f"{option} {model.name} trains none; leave it off")
    order = plan.schedule.order(stage=last, stages=plan.pp, chunks=plan.vpp, microbatches=microbatches)
    if any(action.kind == INPUT for run in order for step in run.body for action in step.actions):
        raise PlanError(f"{option} schedule {plan.schedule.name} places all such gradients itself; use schedule 1f1b, or leave it off")


def check_autocast(model: Model, recipe: Recipe) -> None:
    """Refuse a precision that a model was not traced under.

    Raises:
        ModelError: naming both.
    """
    if model.autocast is not None and recipe.precision != model.autocast:
        raise ModelError(
            f"{model.name} was traced under autocast to {model.autocast}, and precision is {recipe.precision}; "
            f"use precision {model.autocast}, or trace it without autocast"
        )
