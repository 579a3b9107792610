"""Collectives and sends on a fabric without latency, by hand, and what holds on every fabric."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.sim.collectives import NOTHING, collective, send
from foretrain.sim.placement import Span, span
from tests.sim import hand
from tests.sim.hand import GIGA

quick = settings(deadline=None, derandomize=True, max_examples=100)
PASSES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1}
kinds = st.sampled_from(sorted(PASSES))
byte_counts = st.floats(1.0, 1e12)
MACHINES = {name: load_cluster(f"{name}:64") for name in ("dgx-1v-16gb", "dgx-a100-80gb", "dgx-h100")}


def group(cluster: Cluster, *, ranks: int, stride: int = 1) -> Span:
    """Return a group that begins at the first device of a cluster that is used whole."""
    return span(cluster, start=0, stride=stride, ranks=ranks, occupied=cluster.accelerators)


@quick
@given(kinds, st.integers(2, 8), byte_counts)
def test_a_ring_moves_its_share_of_the_tensor(kind: str, ranks: int, size_bytes: float) -> None:
    """2(n - 1)/n of the bytes on each link for an all-reduce, half of that for its two halves; over the bandwidth, that is its time.

    Thakur, Rabenseifner, Gropp, IJHPCA 19 (2005), section 4.
    """
    cost = collective(kind, size_bytes, group(hand.cluster(), ranks=ranks), hand.cluster())
    assert cost.wire_bytes == pytest.approx(PASSES[kind] * (ranks - 1) / ranks * size_bytes)
    assert cost.total_s == pytest.approx(cost.wire_bytes / (100 * GIGA))
    assert (cost.port_bytes_per_s, cost.network_bytes_per_s) == pytest.approx((100 * GIGA, 0.0))


@quick
@given(kinds, st.integers(2, 100), byte_counts)
def test_whole_nodes_ring_at_the_speed_of_their_nics(kind: str, nodes: int, size_bytes: float) -> None:
    """Every device brings a NIC of 10 GB/s, so n nodes of 8 move the wire bytes of one device at 80 GB/s, and take all of the NICs."""
    cluster = hand.cluster(nodes=nodes)
    cost = collective(kind, size_bytes, group(cluster, ranks=8 * nodes), cluster)
    wire_bytes = PASSES[kind] * (8 * nodes - 1) / (8 * nodes) * size_bytes
    assert cost.total_s == pytest.approx(wire_bytes / (80 * GIGA))
    assert 8 * cost.network_bytes_per_s == pytest.approx(80 * GIGA)


@quick
@given(kinds, st.integers(2, 100), byte_counts)
def test_one_device_of_each_node_rings_at_the_speed_of_its_nic(kind: str, nodes: int, size_bytes: float) -> None:
    """Eight such groups share a node's NICs, one each, and no port carries anything."""
    cluster = hand.cluster(nodes=nodes)
    cost = collective(kind, size_bytes, group(cluster, ranks=nodes, stride=8), cluster)
    assert cost.total_s == pytest.approx(PASSES[kind] * (nodes - 1) / nodes * size_bytes / (10 * GIGA))
    assert (cost.port_bytes_per_s, cost.network_bytes_per_s) == pytest.approx((0.0, 10 * GIGA))


@quick
@given(st.integers(1, 64), st.integers(0, 8))
def test_an_all_reduce_is_a_scatter_and_a_gather(ranks: int, exponent: int) -> None:
    """In bytes and, without latency, in time."""
    cluster = hand.cluster(nodes=8)
    whole, scatter, gather = (
        collective(kind, 10.0**exponent, group(cluster, ranks=ranks), cluster) for kind in ("all_reduce", "reduce_scatter", "all_gather")
    )
    assert whole.wire_bytes == pytest.approx(scatter.wire_bytes + gather.wire_bytes)
    assert whole.total_s == pytest.approx(scatter.total_s + gather.total_s)


def test_alone_or_with_nothing_to_say_is_free() -> None:
    """One rank, or no bytes."""
    cluster = hand.cluster()
    assert collective("all_reduce", 1e9, group(cluster, ranks=1), cluster) is NOTHING
    assert collective("all_gather", 0.0, group(cluster, ranks=8), cluster) is NOTHING
    assert send(0.0, cluster, crosses=True, flows=8) is NOTHING


@quick
@given(st.integers(2, 8))
def test_latency_grows_by_the_steps(ranks: int) -> None:
    """A ring of n takes n - 1 steps of 2 µs after 10 µs of start, twice for an all-reduce."""
    cluster = hand.cluster(up=hand.fabric(base_latency_s=10e-6, step_latency_s=2e-6))
    cost = collective("all_gather", 1.0, group(cluster, ranks=ranks), cluster)
    assert cost.latency_s == pytest.approx(10e-6 + (ranks - 1) * 2e-6)
    cost = collective("all_reduce", 1.0, group(cluster, ranks=ranks), cluster)
    assert cost.latency_s == pytest.approx(10e-6 + 2 * (ranks - 1) * 2e-6)


@quick
@given(st.floats(1.0, 1e10), st.integers(1, 8))
def test_a_send_has_its_nic_or_its_share(size_bytes: float, flows: int) -> None:
    """Up to 8 flows have a NIC of 10 GB/s each, 16 half of one; inside a node a send has the port of 100 GB/s."""
    cluster = hand.cluster(nodes=2)
    assert send(size_bytes, cluster, crosses=True, flows=flows).total_s == pytest.approx(size_bytes / (10 * GIGA))
    assert send(size_bytes, cluster, crosses=True, flows=2 * 8).total_s == pytest.approx(size_bytes / (5 * GIGA))
    assert send(size_bytes, cluster, crosses=False, flows=flows).total_s == pytest.approx(size_bytes / (100 * GIGA))


@pytest.mark.parametrize("machine", sorted(MACHINES))
@quick
@given(kind=kinds, ranks=st.integers(2, 512), stride=st.sampled_from((1, 2, 8)), size_bytes=byte_counts, factor=st.floats(1.0, 10.0))
def test_time_grows_with_the_bytes_and_not_with_the_bandwidth(
    machine: str, kind: str, ranks: int, stride: int, size_bytes: float, factor: float
) -> None:
    """On real fabrics, the choice of algorithm included: more bytes never take less time, more bandwidth never more."""
    cluster = MACHINES[machine]
    lies = group(cluster, ranks=min(ranks, cluster.accelerators // stride), stride=stride)
    cost = collective(kind, size_bytes, lies, cluster)
    assert collective(kind, size_bytes * factor, lies, cluster).total_s >= cost.total_s * (1 - 1e-12)
    assert collective(kind, size_bytes, lies, cluster, scale=factor).total_s <= cost.total_s * (1 + 1e-12)
    node = cluster.node
    quicker = replace(node, scale_up=replace(node.scale_up, bandwidth_bytes_per_s=node.scale_up.bandwidth_bytes_per_s * factor))
    assert collective(kind, size_bytes, lies, replace(cluster, node=quicker)).total_s <= cost.total_s * (1 + 1e-12)
    wider = replace(node, nic_bytes_per_s=node.nic_bytes_per_s * factor)
    faster = replace(cluster, node=wider)
    assert collective(kind, size_bytes, group(faster, ranks=lies.ranks, stride=stride), faster).total_s <= cost.total_s * (1 + 1e-12)


@pytest.mark.parametrize("machine", sorted(MACHINES))
@quick
@given(kind=kinds, ranks=st.integers(2, 512), stride=st.sampled_from((1, 2, 4, 8)), size_bytes=byte_counts)
def test_no_group_asks_for_more_than_the_links_have(machine: str, kind: str, ranks: int, stride: int, size_bytes: float) -> None:
    """A member for its port at most the port; all devices of a node together at most its NICs."""
    cluster = MACHINES[machine]
    lies = group(cluster, ranks=min(ranks, cluster.accelerators // stride), stride=stride)
    cost = collective(kind, size_bytes, lies, cluster)
    assert cost.port_bytes_per_s <= cluster.node.scale_up.bandwidth_bytes_per_s * (1 + 1e-12)
    assert cost.network_bytes_per_s * cluster.node.accelerators <= cluster.node.network_bytes_per_s * (1 + 1e-9)
