"""Where the ranks of a plan sit, which of them are alike, and how far their groups reach.

Ranks are numbered in the order of the plan, fastest dimension first, and rank `i` sits on scale-up domain `i // domain`. In
Megatron-LM's order, tp-dp-pp, that is rank `(stage * dp + replica) * tp + t`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from foretrain.hardware.cluster import Cluster
from foretrain.models.model import Block, Model
from foretrain.sim.checks import aligned, check, check_autocast, check_deferral, microbatches_of
from foretrain.sim.cut import cut
from foretrain.sim.disturbance import CALM, Disturbance
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.seats import Line, Seat
from foretrain.sim.unlike import beside_alike, unlike


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
    """Data-parallel replicas that are placed alike, the middle one of which is simulated: it has most of its like on either side."""

    members: Sequence[int]

    @property
    def replica(self) -> int:
        """The replica that is simulated."""
        return self.members[len(self.members) // 2]

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
    """Blocks of each part of the model, in its order; `part` says which one a chunk of a stage is."""
    microbatches: int
    classes: tuple[ReplicaClass, ...]
    strides: Mapping[str, int]
    """Ranks between neighbours along tp, cp, dp and pp."""
    lines: tuple[Line, ...]
    """The seats of those parts, a line for each copy of the model in a pipeline."""
    seats: Mapping[Seat, int]
    """Which part each seat holds."""
    disturbance: Disturbance = CALM

    def part(self, stage: int, chunk: int) -> int:
        """Return which part of the model a chunk of a stage is."""
        return self.seats[Seat(stage, chunk)]

    @property
    def chunks(self) -> int:
        """Model chunks on a stage, those of all copies."""
        return self.plan.vpp * len(self.lines)

    @property
    def microbatches_each(self) -> int:
        """Micro-batches that go along each line."""
        return self.microbatches // len(self.lines)

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
            return sum(self.replicas_on(home, stage, *other) for other in alike)
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

    def replicas_on(self, node: int, stage: int, t: int, c: int) -> int:
        """Return how many replicas have their rank (stage, t, c) on a node."""
        size, stride, dp = self.cluster.node.accelerators, self.strides["dp"], self.plan.dp
        below = [-((self.rank(stage, 0, t, c) - start * size) // stride) for start in (node, node + 1)]
        return min(dp, max(0, below[1])) - min(dp, max(0, below[0]))

    def input_elements(self, part: int) -> int:
        """Return the activation elements per sample that a part of the model takes from the one before it."""
        return next(iter((*self.chunk_layers[part], *self.model.epilogue))).input_elements

    def message_elements(self, own: int, following: int) -> int:
        """Return the elements per sample that a chunk sends to the following one: no gradient to one whose layers stand still."""
        chunk = self.chunk_layers[following]
        if following < own and chunk and all(block.still for block in chunk):
            return 0
        return self.input_elements(max(own, following))

    def tensor_span(self, stage: int, replica: int) -> Span:
        """Return the span of a tensor-parallel group."""
        return self._span(self.rank(stage, replica), self.strides["tp"], self.plan.tp)

    @property
    def exchanges(self) -> bool:
        """Whether several ranks hold the same parameters, and so exchange gradients."""
        return self.plan.copies * len(self.lines) > 1

    def twin(self, stage: int) -> int | None:
        """Return the stage that holds the other copy of the parts of this one; None where the pipeline has one copy of the model."""
        return self.plan.pp - 1 - stage if len(self.lines) > 1 else None

    @property
    def tied_stages(self) -> tuple[int, ...]:
        """The two stages that hold the ends of the model; none where one stage holds both."""
        first, last = self.lines[0][0].stage, self.lines[0][-1].stage
        return (first, last) if first != last and len(self.lines) == 1 else ()

    def data_span(self, stage: int) -> Span:
        """Return the span of all ranks that hold the parameters of a stage."""
        return self._copied(stage, self._between_copies, self.plan.copies)

    def shard_span(self, stage: int) -> Span:
        """Return the span of the ranks that share one copy of the sharded state."""
        return self._span(self.rank(stage, 0), self._between_copies, self.plan.shards)

    def replica_span(self, stage: int) -> Span:
        """Return the span of the ranks that hold the same shard."""
        shards = self.plan.shards
        return self._copied(stage, self._between_copies * shards, self.plan.copies // shards)

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
        return self._copied(stage, self._between_copies * apart, self.plan.copies // apart)

    @property
    def _between_copies(self) -> int:
        """Ranks between neighbours among those that hold the same parameters: cp and dp stand side by side."""
        return min(self.strides["dp"], self.strides["cp"]) if self.plan.cp > 1 else self.strides["dp"]

    def tied_span(self, replica: int) -> Span:
        """Return the span of the first and last stage of one replica, which share the embedding."""
        first, last = self.tied_stages
        return self._span(self.rank(first, replica), self.rank(last, replica) - self.rank(first, replica), 2)

    def _copied(self, stage: int, stride: int, ranks: int) -> Span:
        """Return the span of `ranks` replicas of a stage, together with those of its twin."""
        twin = self.twin(stage)
        own = self._span(self.rank(stage, 0), stride, ranks)
        if twin is None:
            return own
        domain = self.cluster.node.scale_up.domain
        firsts = (self.rank(stage, 0), self.rank(twin, 0))
        domains = len({(first + replica * stride) // domain for first in firsts for replica in range(ranks)})
        per_domain = -(-2 * ranks // domains)
        on_node = min(self.cluster.node.accelerators, self.plan.ranks)
        share = self.cluster.node.network_bytes_per_s * per_domain / on_node
        return Span(ranks=2 * ranks, domains=domains, per_domain=per_domain, network_bytes_per_s=share if domains > 1 else float("inf"))

    def _span(self, start: int, stride: int, ranks: int) -> Span:
        return span(self.cluster, start=start, stride=stride, ranks=ranks, occupied=self.plan.ranks)


def place(model: Model, cluster: Cluster, plan: Plan, recipe: Recipe, disturbance: Disturbance = CALM) -> Placement:
    """Return the plan laid over the cluster.

    Raises:
        PlanError: where it cannot be placed; the message names the degrees that could be.
    """
    check(model, cluster, plan)
    check_autocast(model, recipe)
    microbatches = microbatches_of(plan, recipe)
    lines = plan.schedule.seats.lines(stages=plan.pp, chunks=plan.vpp)
    layers = cut(model, plan)
    check_deferral(model, plan, lines[0][-1].stage, microbatches)
    seats = {seat: part for line in lines for part, seat in enumerate(line)}
    disturbance.check(plan.ranks, cluster.node.accelerators)
    classes = tuple(ReplicaClass(members=each) for each in unlike(_classes(cluster, plan), cluster, plan, disturbance))
    return Placement(model, cluster, plan, recipe, layers, microbatches, classes, plan.strides, lines, seats, disturbance)


def _classes(cluster: Cluster, plan: Plan) -> tuple[Sequence[int], ...]:
    """Group the data-parallel replicas by where their groups and sends cross a scale-up domain."""
    if "dp" in plan.unfold:
        return tuple((replica,) for replica in range(plan.dp))
    domain, strides = cluster.node.scale_up.domain, plan.strides
    blocks = sorted(strides.values())[1:]
    apart = plan.tp > 1 and strides["tp"] > 1
    if apart or (aligned(plan.tp, domain) and (plan.pp == 1 or aligned(blocks[-1], domain))):
        return (range(plan.dp),)
    found: dict[tuple[int, ...], list[int]] = {}
    for replica in range(plan.dp):
        firsts = [stage * strides["pp"] + replica * strides["dp"] for stage in range(plan.pp)]
        homes = [first // domain for first in firsts]
        reach = [(first + plan.tp - 1) // domain - home for first, home in zip(firsts, homes, strict=True)]
        found.setdefault((*reach, *(int(a != b) for a, b in pairwise(homes))), []).append(replica)
    return beside_alike(tuple(found.values()), cluster, plan)
