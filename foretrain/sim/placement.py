"""Where the ranks of a plan sit, which of them are alike, and how far their groups reach.

Ranks are numbered in the order of the plan, fastest dimension first, and rank `i` sits on scale-up domain `i // domain`. In
Megatron-LM's order, tp-dp-pp, that is rank `(stage * dp + replica) * tp + t`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod

from foretrain.errors import PlanError
from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Block, Model
from foretrain.sim.cuts import check_context, check_experts, check_sharding, check_tensor
from foretrain.sim.disturbance import CALM, Disturbance
from foretrain.sim.divisors import closest, divisors
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.unlike import unlike

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
    """Ranks between neighbours along tp, cp, dp and pp."""
    disturbance: Disturbance = CALM

    def rank(self, stage: int, replica: int, t: int = 0, c: int = 0) -> int:
        """Return the global rank of a coordinate."""
        strides = self.strides
        return stage * strides["pp"] + replica * strides["dp"] + t * strides["tp"] + c * strides["cp"]

    def node(self, stage: int, replica: int, t: int = 0, c: int = 0) -> int:
        """Return the node that a coordinate sits on."""
        return self.rank(stage, replica, t, c) // self.cluster.node.accelerators

    def domain(self, stage: int, replica: int) -> int:
        """Return the scale-up domain of the first tensor rank of a coordinate."""
        return self.rank(stage, replica) // self.cluster.node.scale_up.domain

    def flows(self, stage: int, replicas: ReplicaClass, t: int = 0, c: int = 0) -> int:
        """Return how many ranks on its node a simulated rank stands for: they do the same, so they share the node's NICs."""
        home, unfold = self.node(stage, replicas.replica, t, c), self.plan.unfold
        tensor = range(t, t + 1) if "tp" in unfold else range(self.plan.tp)
        context = range(c, c + 1) if "cp" in unfold else range(self.plan.cp)
        alike = tuple(product(tensor, context))
        if len(self.classes) == 1:
            return sum(self._replicas_on(home, stage, *other) for other in alike)
        return sum(self.node(stage, replica, *other) == home for replica in replicas.members for other in alike)

    def slowest_factor(self, stage: int, replica: int, tensor: Sequence[int], context: Sequence[int]) -> float:
        """Return how many times longer kernels take on the slowest of some ranks of a replica, which keep in step."""
        per_node = self.cluster.node.accelerators
        ranks = (self.rank(stage, replica, t, c) for t in tensor for c in context)
        return max(self.disturbance.device_factor(rank, per_node) for rank in ranks)

    def slowest_node(self, stage: int, replica: int, tensor: Sequence[int], context: Sequence[int]) -> int:
        """Return the node of some ranks of a replica whose NICs carry least, the first of those alike."""
        nodes = [self.node(stage, replica, t, c) for t in tensor for c in context]
        return max(nodes, key=lambda node: self.disturbance.links.get(node, 1.0))

    def _replicas_on(self, node: int, stage: int, t: int, c: int) -> int:
        """Return how many replicas have their rank (stage, t, c) on a node."""
        size, stride, dp = self.cluster.node.accelerators, self.strides["dp"], self.plan.dp
        below = [-((self.rank(stage, 0, t, c) - start * size) // stride) for start in (node, node + 1)]
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
        """Return the span of all ranks of a stage that hold the same parameters."""
        return self._span(self.rank(stage, 0), self._between_copies, self.plan.copies)

    def shard_span(self, stage: int) -> Span:
        """Return the span of the ranks that share one copy of the sharded state."""
        return self._span(self.rank(stage, 0), self._between_copies, self.plan.shards)

    def replica_span(self, stage: int) -> Span:
        """Return the span of the ranks that hold the same shard."""
        shards = self.plan.shards
        return self._span(self.rank(stage, 0), self._between_copies * shards, self.plan.copies // shards)

    def context_span(self) -> Span:
        """Return the span of the ranks that share the rows of a sample."""
        return self._span(0, self.strides["cp"], self.plan.cp)

    def expert_span(self) -> Span:
        """Return the span of the ranks that share the experts."""
        return self._span(0, self._between_copies, self.plan.ep)

    def expert_shard_span(self, stage: int) -> Span:
        """Return the span of the ranks that share one copy of the sharded state of the same experts."""
        return self._span(self.rank(stage, 0), self._between_copies * self.plan.ep, self.plan.expert_shards)

    def expert_replica_span(self, stage: int) -> Span:
        """Return the span of the ranks that hold the same shard of the same experts."""
        apart = self.plan.ep * self.plan.expert_shards
        return self._span(self.rank(stage, 0), self._between_copies * apart, self.plan.copies // apart)

    @property
    def _between_copies(self) -> int:
        """Ranks between neighbours among those that hold the same parameters: cp and dp stand side by side."""
        return min(self.strides["dp"], self.strides["cp"]) if self.plan.cp > 1 else self.strides["dp"]

    def tied_span(self, replica: int) -> Span:
        """Return the span of the first and last stage of one replica, which share the embedding."""
        last = self.plan.pp - 1
        return self._span(self.rank(0, replica), self.rank(last, replica) - self.rank(0, replica), 2)

    def _span(self, start: int, stride: int, ranks: int) -> Span:
        return span(self.cluster, start=start, stride=stride, ranks=ranks, occupied=self.plan.ranks)


def place(model: Model, cluster: Cluster, plan: Plan, recipe: Recipe, disturbance: Disturbance = CALM) -> Placement:
    """Return the plan laid over the cluster.

    Raises:
        PlanError: where it cannot be placed; the message names the degrees that could be.
    """
    _check_size(cluster, plan)
    if plan.pp * plan.vpp > 1 and model.undivided:
        raise PlanError(f"pp={plan.pp}, but a pipeline cannot cut {model.name}: {model.undivided}; use pp=1 with more dp or tp")
    _check_unfolding(plan)
    check_tensor(model, plan)
    check_sharding(plan)
    check_context(model, plan)
    check_experts(model, plan)
    _check_order(cluster, plan)
    microbatches = _microbatches(plan, recipe)
    layers = _cut(model, plan)
    disturbance.check(plan.ranks, cluster.node.accelerators)
    classes = unlike(_classes(cluster, plan), cluster, plan, disturbance)
    members = tuple(ReplicaClass(members=each) for each in classes)
    return Placement(model, cluster, plan, recipe, layers, microbatches, members, plan.strides, disturbance)


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


def _check_order(cluster: Cluster, plan: Plan) -> None:
    """Refuse an order that puts ranks of a replica, or of a group that meets in every layer, at unlike places."""
    domain, strides = cluster.node.scale_up.domain, plan.strides
    joined = plan.cp > 1 or plan.ep > 1
    if not joined and (plan.tp == 1 or strides["tp"] == 1):
        return
    blocks = [*strides.values(), *((min(strides["cp"], strides["dp"]) * plan.ep,) if plan.ep > 1 else ())]
    straddling = [block for block in blocks if block < plan.ranks and not _aligned(block, domain)]
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


def _classes(cluster: Cluster, plan: Plan) -> tuple[Sequence[int], ...]:
    """Group the data-parallel replicas by where their groups and sends cross a scale-up domain."""
    if "dp" in plan.unfold:
        return tuple((replica,) for replica in range(plan.dp))
    domain, strides = cluster.node.scale_up.domain, plan.strides
    blocks = sorted(strides.values())[1:]
    apart = plan.tp > 1 and strides["tp"] > 1
    if apart or (_aligned(plan.tp, domain) and (plan.pp == 1 or _aligned(blocks[-1], domain))):
        return (range(plan.dp),)
    found: dict[tuple[int, ...], list[int]] = {}
    for replica in range(plan.dp):
        firsts = [stage * strides["pp"] + replica * strides["dp"] for stage in range(plan.pp)]
        homes = [first // domain for first in firsts]
        reach = [(first + plan.tp - 1) // domain - home for first, home in zip(firsts, homes, strict=True)]
        found.setdefault((*reach, *(int(a != b) for a, b in pairwise(homes))), []).append(replica)
    return tuple(found.values())
