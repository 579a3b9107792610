"""Exchanges of replicas that are kept alike otherwise than by an all-reduce of gradients in every step.

**Source:** Stich, arXiv:1805.09767 (local SGD); Douillard et al., DiLoCo, arXiv:2311.08105, algorithm 1; PyTorch, `torch.nn.DataParallel`
(replicate, scatter, gather); Li et al., OSDI 2014 (parameter server), as TensorFlow 1's replicas use it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from foretrain.models.stream import stream_kernel
from foretrain.sim.collectives import TransferCost
from foretrain.sim.exchange import Exchange, Instructions
from foretrain.sim.program import Instruction
from foretrain.sim.replication import DILOCO
from foretrain.sim.schedules.base import FORWARD, INPUT
from foretrain.sim.segment import DATA

OUTER_BYTES = 4.0
"""Replicas that seldom meet exchange fp32 weights, or their differences from where they last met."""
OUTER_PASSES = 6
"""Reads of weight, last weight and momentum, and their writes: an outer step of Nesterov momentum."""


class Apart(Exchange):
    """What the others share: all passes of a kind are alike, and nothing runs ahead of them."""

    @property
    def first_apart(self) -> bool:
        """No."""
        return False

    @property
    def last_apart(self) -> bool:
        """No."""
        return False

    def begin(self) -> tuple[Instruction, ...]:
        """Return nothing."""
        return ()

    def end(self) -> tuple[Instruction, ...]:
        """Return what the replicas exchange at the end of a step, with the optimizer."""
        copied = self.host.gradients("gradients", self.work.state.trained, self.work.state.experts_trained)
        return (*self._deferred(), *self._tied(), *copied, *self.host.waits, *self._last())

    def _passed(self, kind: int, chunk: int, *, special: bool) -> Instructions:
        return self._run(kind, chunk)

    @abstractmethod
    def _last(self) -> Instructions: ...

    def _exposed(self, name: str, cost: TransferCost) -> Instructions:
        """Return a transfer of all replicas that is waited for."""
        if cost.total_s == 0.0:
            return []
        return list(self.context.start(name, DATA, cost, group=self._group(self.member.stage), members=self.classes, stream=1))

    def _weight_bytes(self) -> float:
        """Return what a parameter takes where it is computed with."""
        return self.context.numbers.state.parameter_bytes or self.context.numbers.element_bytes


class SeldomMet(Apart):
    """Replicas step alone and exchange every so many steps; one step has its share of that."""

    def _last(self) -> Instructions:
        placement, trained = self.context.placement, self.work.state.trained
        steps = placement.plan.local_steps or 1
        cost = self.context.cost("all_reduce", trained * OUTER_BYTES, placement.data_span(self.member.stage))
        share = replace(cost, latency_s=cost.latency_s / steps, full_s=cost.full_s / steps, wire_bytes=cost.wire_bytes / steps)
        met = [*self.work.optimizer(), *self._exposed("all-reduce weights", share)]
        if placement.plan.replication != DILOCO:
            return met
        outer = stream_kernel("outer step", trained * OUTER_BYTES * OUTER_PASSES / steps)
        return [*met, *self.work.beside("outer", (outer,))]


class FirstDevice(Apart):
    """One process copies the weights from the first device before each forward pass, adds up gradients there after each backward pass.

    The first device alone steps; the others wait. Inputs and results are small beside the weights and not counted.
    """

    def _passed(self, kind: int, chunk: int, *, special: bool) -> Instructions:
        passed = super()._passed(kind, chunk, special=special)
        span, state = self.context.placement.data_span(0), self.work.state
        if kind == FORWARD:
            cost = self.context.cost("broadcast", state.parameters * self._weight_bytes(), span)
            return [*self._exposed("broadcast weights", cost), *passed]
        if kind == INPUT:
            return passed
        # A reduction to one device is a broadcast the other way.
        cost = self.context.cost("broadcast", state.trained * self.context.numbers.state.reduce_bytes, span)
        return [*passed, *self._exposed("add up gradients", cost)]

    def _last(self) -> Instructions:
        return list(self.work.optimizer())


class Server(Apart):
    """Workers push gradients to servers and pull weights after the servers' CPUs have stepped; nothing hides either."""

    def _last(self) -> Instructions:
        state, numbers = self.work.state, self.context.numbers.state
        push = self._served(state.trained * numbers.reduce_bytes)
        pull = self._served(state.trained * self._weight_bytes())
        return [*self._exposed("push gradients", push), *self.work.optimizer(), *self._exposed("pull weights", pull)]

    def _served(self, size_bytes: float) -> TransferCost:
        """Return the cost of moving so many bytes between each worker and all servers: as fast as the slower of both sides' NICs."""
        placement = self.context.placement
        plan, node = placement.plan, placement.cluster.node
        beside = min(node.accelerators, plan.dp)
        servers = plan.servers or -(-plan.dp // node.accelerators)
        rate = min(node.network_bytes_per_s / beside, node.network_bytes_per_s * servers / plan.dp)
        latency = placement.cluster.scale_out.base_latency_s
        return TransferCost(
            latency_s=latency, full_s=size_bytes / rate, port_bytes_per_s=0.0, network_bytes_per_s=rate, wire_bytes=size_bytes
        )
