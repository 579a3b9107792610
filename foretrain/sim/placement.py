"""Where the ranks of a plan sit, which of them are alike, and how far their groups reach.

Ranks are numbered in the order of the plan, fastest dimension first, and rank `i` sits on scale-up domain `i // domain`. In
Megatron-LM's order, tp-dp-pp, that is rank `(stage * dp + replica) * tp + t`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from foretrain.errors import PlanError
from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Block, Model
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe

LARGEST_UNFOLDED = 2**15
"""Ranks that are played one by one at most: about a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """How a group of `ranks` lies over the machine: `domains` scale-up domains, at most `per_domain` members in each.

    `network_bytes_per_s` is the group's share of the NICs of the domains it touches when its sibling groups on the same nodes
    communicate at the same time; infinite where the group stays inside one domain.
    """

    ranks: int
    domains: int
    per_domain: int
    network_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaClass:
    """Data-parallel replicas that are placed alike, the first of which is simulated."""

    members: Sequence[int]

    @property
    def replica(self) -> int:
        """The replica that is simulated."""
        return self.members[0]

    @property
    def multiplicity(self) -> int:
        """Replicas that it stands for."""
        return len(self.members)


def span(cluster: Cluster, *, start: int, stride: int, ranks: int, occupied: int) -> Span:
    """Return how the group `start, start + stride, …` of `ranks` members lies over the cluster's scale-up domains."""
    domain = cluster.node.scale_up.domain
    last = start + (ranks - 1) * stride
    domains = ranks if stride >= domain else last // domain - start // domain + 1
    per_domain = -(-ranks // domains)
    on_node = min(cluster.node.accelerators, occupied)
    share = cluster.node.network_bytes_per_s * per_domain / on_node
    return Span(ranks=ranks, domains=domains, per_domain=per_domain, network_bytes_per_s=share if domains > 1 else float("inf"))


@dataclass(frozen=True, slots=True)
class Placement:
    """A plan laid over a cluster: layers per chunk, classes of replicas, groups."""

    model: Model
    cluster: Cluster
    plan: Plan
    recipe: Recipe
    chunk_layers: tuple[tuple[Block, ...], ...]
    """Blocks of each model chunk; chunk `c` of stage `s` is entry `c * pp + s`."""
    microbatches: int
    classes: tuple[ReplicaClass, ...]
    strides: Mapping[str, int]
    """Ranks between neighbours along tp, dp and pp."""

    def rank(self, stage: int, replica: int, t: int = 0) -> int:
        """Return the global rank of a coordinate."""
        strides = self.strides
        return stage * strides["pp"] + replica * strides["dp"] + t * strides["tp"]

    def node(self, stage: int, replica: int, t: int = 0) -> int:
        """Return the node that a coordinate sits on."""
        return self.rank(stage, replica, t) // self.cluster.node.accelerators

    def domain(self, stage: int, replica: int) -> int:
        """Return the scale-up domain of the first tensor rank of a coordinate."""
        return self.rank(stage, replica) // self.cluster.node.scale_up.domain

    def flows(self, stage: int, replicas: ReplicaClass, t: int = 0) -> int:
        """Return how many ranks on its node a simulated rank stands for: they do the same, so they share the node's NICs."""
        home = self.node(stage, replicas.replica, t)
        alike = range(t, t + 1) if "tp" in self.plan.unfold else range(self.plan.tp)
        if len(self.classes) == 1:
            return sum(self._replicas_on(home, stage, other) for other in alike)
        return sum(self.node(stage, replica, other) == home for replica in replicas.members for other in alike)

    def _replicas_on(self, node: int, stage: int, t: int) -> int:
        """Return how many replicas have their rank (stage, t) on a node."""
        size, stride, dp = self.cluster.node.accelerators, self.strides["dp"], self.plan.dp
        below = [-((self.rank(stage, 0, t) - start * size) // stride) for start in (node, node + 1)]
        return min(dp, max(0, below[1])) - min(dp, max(0, below[0]))

    def input_elements(self, chunk: int) -> int:
        """Return the activation elements per sample that a model chunk takes from the one before it."""
        return next(iter((*self.chunk_layers[chunk], *self.model.epilogue))).input_elements

    def message_elements(self, own: int, following: int) -> int:
        """Return the elements per sample that a chunk sends to the following one: no gradient to one whose layers stand still."""
        chunk = self.chunk_layers[following]
        if following < own and chunk and all(block.still for block in chunk):
            return 0
        return self.input_elements(max(own, following))

    def tensor_span(self, stage: int, replica: int) -> Span:
        """Return the span of a tensor-parallel group."""
        return self._span(self.rank(stage, replica), self.strides["tp"], self.plan.tp)

    def data_span(self, stage: int) -> Span:
        """Return the span of all data-parallel replicas of a stage."""
        return self._span(self.rank(stage, 0), self.strides["dp"], self.plan.dp)

    def shard_span(self, stage: int) -> Span:
        """Return the span of the ranks that share one copy of the sharded state."""
        return self._span(self.rank(stage, 0), self.strides["dp"], self.plan.shards)

    def replica_span(self, stage: int) -> Span:
        """Return the span of the ranks that hold the same shard."""
        shards = self.plan.shards
        return self._span(self.rank(stage, 0), self.strides["dp"] * shards, self.plan.dp // shards)

    def tied_span(self, replica: int) -> Span:
        """Return the span of the first and last stage of one replica, which share the embedding."""
        last = self.plan.pp - 1
        return self._span(self.rank(0, replica), self.rank(last, replica) - self.rank(0, replica), 2)

    def _span(self, start: int, stride: int, ranks: int) -> Span:
        return span(self.cluster, start=start, stride=stride, ranks=ranks, occupied=self.plan.ranks)


def place(model: Model, cluster: Cluster, plan: Plan, recipe: Recipe) -> Placement:
    """Return the plan laid over the cluster.

    Raises:
        PlanError: where it cannot be placed; the message names the degrees that could be.
    """
    _check_size(cluster, plan)
    if plan.pp * plan.vpp > 1 and model.undivided:
        raise PlanError(f"pp={plan.pp}, but a pipeline cannot cut {model.name}: {model.undivided}; use pp=1 with more dp or tp")
    _check_unfolding(plan)
    _check_tensor(model, plan)
    _check_sharding(plan)
    _check_order(cluster, plan)
    microbatches = _microbatches(plan, recipe)
    layers = _cut(model, plan)
    return Placement(model, cluster, plan, recipe, layers, microbatches, _classes(cluster, plan), plan.strides)


def divisors(number: int) -> list[int]:
    """Return all divisors in rising order."""
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]


def closest(wanted: int, options: list[int], count: int = 4) -> str:
    """Return the options nearest to what was asked, in rising order, for a message."""
    return ", ".join(str(option) for option in sorted(sorted(options, key=lambda option: abs(option - wanted))[:count]))


def _check_size(cluster: Cluster, plan: Plan) -> None:
    if plan.ranks > cluster.accelerators:
        per_node = cluster.node.accelerators
        raise PlanError(
            f"dp={plan.dp} × tp={plan.tp} × pp={plan.pp} needs {plan.ranks} accelerators, but {cluster.name} has "
            f"{cluster.accelerators}; use at least {-(-plan.ranks // per_node)} nodes or smaller degrees"
        )
    if cluster.scale_out.topology == "none" and plan.ranks > cluster.domain:
        raise PlanError(
            f"dp={plan.dp} × tp={plan.tp} × pp={plan.pp} is {plan.ranks} accelerators, but {cluster.name} has no network beyond "
            f"{cluster.domain} (scale_out topology none); use smaller degrees, or give it a network"
        )


def _check_unfolding(plan: Plan) -> None:
    """Refuse to play more ranks one by one than memory and patience hold."""
    played = plan.pp * (plan.dp if "dp" in plan.unfold else 1) * (plan.tp if "tp" in plan.unfold else 1)
    if plan.unfold and played > LARGEST_UNFOLDED:
        raise PlanError(
            f"unfold={','.join(sorted(plan.unfold))} would play {played:,} ranks one by one, above {LARGEST_UNFOLDED:,}; "
            "leave it out (ranks that are alike are played once, with the same result) or use smaller degrees"
        )


def _check_tensor(model: Model, plan: Plan) -> None:
    if plan.sequence_parallel and plan.tp == 1:
        raise PlanError("sequence_parallel cuts along the tensor-parallel group, but tp=1; raise tp or leave it off")
    if plan.tp > 1 and not model.tensor_dims:
        raise PlanError(f"tp={plan.tp}, but {model.name} has no products that tensor parallelism could cut; use tp=1 with more dp or pp")
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


def _check_sharding(plan: Plan) -> None:
    if plan.shard is None:
        return
    if plan.zero == 0:
        raise PlanError(f"shard={plan.shard} needs something to shard, but zero=0; use zero 1, 2 or 3")
    if plan.shard < 1 or plan.dp % plan.shard:
        raise PlanError(f"shard={plan.shard} does not divide dp={plan.dp}; use one of {closest(plan.shard, divisors(plan.dp))}")


def _check_order(cluster: Cluster, plan: Plan) -> None:
    """Refuse an order that puts the tensor-parallel ranks of a replica at unlike places: they could not keep in step."""
    domain, strides = cluster.node.scale_up.domain, plan.strides
    if plan.tp == 1 or strides["tp"] == 1:
        return
    straddling = [block for block in strides.values() if block < plan.ranks and not _aligned(block, domain)]
    if straddling:
        raise PlanError(
            f"order={plan.order} numbers ranks in blocks of {straddling[0]}, which straddle scale-up domains of {domain}, so that the "
            f"{plan.tp} tensor-parallel ranks of a replica would lie unlike; use an order that begins with tp, or degrees whose products "
            f"divide {domain} or are multiples of it"
        )


def _aligned(block: int, domain: int) -> bool:
    """Return whether blocks of so many ranks, one after another, all lie alike over the scale-up domains."""
    return block % domain == 0 or domain % block == 0


def _microbatches(plan: Plan, recipe: Recipe) -> int:
    samples = plan.dp * plan.micro_batch
    if recipe.global_batch % samples:
        low = recipe.global_batch // samples * samples
        raise PlanError(
            f"global batch {recipe.global_batch} is not a multiple of dp={plan.dp} × micro-batch {plan.micro_batch}; "
            f"use {f'{low} or ' if low else ''}{low + samples}"
        )
    return recipe.global_batch // samples


def _cut(model: Model, plan: Plan) -> tuple[tuple[Block, ...], ...]:
    """Cut the layers evenly; where only layers + 2 divide, the embedding and the head each count as one layer.

    The second form is DeepSpeed's `type:transformer|embedding` partition, which BLOOM-176B (70 layers, 12 stages) trained with.
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


def _classes(cluster: Cluster, plan: Plan) -> tuple[ReplicaClass, ...]:
    """Group the data-parallel replicas by where their groups and sends cross a scale-up domain."""
    if "dp" in plan.unfold:
        return tuple(ReplicaClass(members=(replica,)) for replica in range(plan.dp))
    domain, strides = cluster.node.scale_up.domain, plan.strides
    blocks = sorted(strides.values())[1:]
    apart = plan.tp > 1 and strides["tp"] > 1
    if apart or (_aligned(plan.tp, domain) and (plan.pp == 1 or _aligned(blocks[-1], domain))):
        return (ReplicaClass(members=range(plan.dp)),)
    found: dict[tuple[int, ...], list[int]] = {}
    for replica in range(plan.dp):
        firsts = [stage * strides["pp"] + replica * strides["dp"] for stage in range(plan.pp)]
        homes = [first // domain for first in firsts]
        reach = [(first + plan.tp - 1) // domain - home for first, home in zip(firsts, homes, strict=True)]
        found.setdefault((*reach, *(int(a != b) for a, b in pairwise(homes))), []).append(replica)
    return tuple(ReplicaClass(members=tuple(members)) for members in found.values())
