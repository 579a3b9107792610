"""Collectives over two tiers: closed forms of each algorithm, and what must hold for any of them."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.hardware.cluster import Cluster
from foretrain.hardware.fabric import Protocol
from foretrain.hardware.load import list_nodes, load_cluster
from foretrain.sim.algorithms.base import PASSES, wire_share
from foretrain.sim.collectives import choice, collective, options, send
from foretrain.sim.placement import Span
from tests.sim.hand import GIGA, cluster, fabric

SIZES = st.floats(min_value=1.0, max_value=1e11)
KINDS = tuple(PASSES)
US = 1e-6
LIBRARY = (
    "dgx-a100-80gb", "dgx-h100", "dgx-b200", "aws-p5", "dgx-1v-16gb", "dgx-2", "gb200-nvl72", "mi300x-8", "frontier-node", "tpu-v5p-host",
)  # fmt: skip


def inside(ranks: int) -> Span:
    return Span(ranks=ranks, domains=1, per_domain=ranks, network_bytes_per_s=math.inf)


def across(machine: Cluster, domains: int, per_domain: int) -> Span:
    share = machine.node.network_bytes_per_s * per_domain / machine.node.accelerators
    return Span(ranks=domains * per_domain, domains=domains, per_domain=per_domain, network_bytes_per_s=share)


def up(machine: Cluster, **changes: object) -> Cluster:
    node = machine.node
    return replace(machine, node=replace(node, scale_up=replace(node.scale_up, **changes)))  # type: ignore[arg-type]


def by_name(kind: str, span: Span, machine: Cluster) -> dict[str, tuple[float, float]]:
    """Return latency and rate of the full-rate option of each algorithm."""
    found = options(kind, span, machine.node.scale_up, machine.scale_out, machine.node.accelerators, 1.0)
    return {option.algorithm: (option.latency_s, option.bytes_per_s) for option in reversed(found)}


# ── closed forms ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_ring_sends_twice_all_but_its_own_part() -> None:
    """8 ranks, 1 GB, 100 GB/s: 1.75 GB in 17.5 ms, and 14 steps of 2 us after a start of 5 us."""
    machine = cluster(up=fabric(base_latency_s=5 * US, step_latency_s=2 * US))
    cost = collective("all_reduce", GIGA, inside(8), machine)
    assert cost.full_s == pytest.approx(17.5e-3)
    assert cost.latency_s == pytest.approx(33 * US)
    assert collective("all_gather", GIGA, inside(8), machine).latency_s == pytest.approx(19 * US)
    assert collective("broadcast", GIGA, inside(8), machine).full_s == pytest.approx(10e-3)


def test_a_ring_over_nodes_takes_the_pace_of_the_nics() -> None:
    """Two nodes of 8 with 80 GB/s of NICs each: 15 GB/8 at 80 GB/s; 2 steps between nodes, 28 within."""
    machine = cluster(nodes=2, up=fabric(step_latency_s=1 * US), out=fabric(step_latency_s=10 * US, bandwidth_bytes_per_s=80 * GIGA))
    latency, rate = by_name("all_reduce", across(machine, 2, 8), machine)["ring"]
    assert rate == pytest.approx(80 * GIGA)
    assert latency == pytest.approx((28 + 20) * US)


def test_a_tree_is_as_deep_as_the_logarithm_of_its_hosts() -> None:
    """16 nodes of 8: up and down a chain of 7 and 4 levels between nodes."""
    machine = cluster(nodes=16, up=fabric(step_latency_s=1 * US), out=fabric(step_latency_s=10 * US))
    assert by_name("all_reduce", across(machine, 16, 8), machine)["tree"][0] == pytest.approx(2 * (7 + 40) * US)


def test_switches_that_add_need_the_tensor_once_and_a_part() -> None:
    """A port carries S (1 + 1/8): 1 GB at 100 GB/s of ports in 11.25 ms, against 17.5 ms of a ring."""
    machine = cluster(up=fabric(in_network_reduction=1.0))
    best = choice("all_reduce", GIGA, inside(8), machine)
    assert best.algorithm == "in-switch"
    assert wire_share("all_reduce", 8) * GIGA / best.bytes_per_s == pytest.approx(11.25e-3)
    assert choice("all_reduce", GIGA, inside(8), cluster()).algorithm == "ring"
    assert choice("all_gather", GIGA, inside(8), machine).algorithm == "ring"


def test_an_in_switch_tree_sends_the_tensor_once_between_two_nodes() -> None:
    """The network carries S each way between two nodes and 2 S at an inner node of more."""
    machine = cluster(nodes=4, up=fabric(in_network_reduction=1.0), out=fabric(bandwidth_bytes_per_s=80 * GIGA))
    for domains, sent in ((2, 1.0), (4, 2.0)):
        span = across(machine, domains, 8)
        rate = by_name("all_reduce", span, machine)["in-switch tree"][1]
        assert wire_share("all_reduce", span.ranks) * GIGA / rate == pytest.approx(max(sent / 80, 1.125 / 100))


def test_a_hierarchy_adds_its_stages() -> None:
    """XLA over two slices of 4: 3/4 S inside at 100 GB/s, then half of what is left at the NICs, once for a gather."""
    machine = cluster(nodes=2, up=fabric(library="xla"), out=fabric(bandwidth_bytes_per_s=80 * GIGA))
    span = across(machine, 2, 4)
    rate = by_name("all_gather", span, machine)["hierarchical"][1]
    assert 7 / 8 * GIGA / rate == pytest.approx(0.75 / 100 + 0.5 / 40)


@pytest.mark.parametrize(("ranks", "share"), [(4, 1 / 3), (16, 2 / 3), (64, 1.0)])
def test_a_torus_uses_the_axes_that_a_group_fills(ranks: int, share: float) -> None:
    """On 4 x 4 x 4 chips, a group of 4 has one axis, of 16 two, of 64 all, and its port is free for the rest."""
    machine = cluster(up=fabric(topology="torus-3d", library="xla", domain=64))
    cost = collective("all_gather", GIGA, inside(ranks), machine)
    assert cost.full_s == pytest.approx((ranks - 1) / ranks / 100 / share)
    assert cost.port_bytes_per_s == pytest.approx(100 * GIGA * share)


def test_an_open_axis_carries_half() -> None:
    """Four chips in a row without wrap-around take twice the time of a closed ring."""
    closed = cluster(up=fabric(topology="torus-1d", library="xla", domain=4))
    opened = up(closed, wraparound=8)
    ratio = collective("all_reduce", GIGA, inside(4), opened).full_s / collective("all_reduce", GIGA, inside(4), closed).full_s
    assert ratio == pytest.approx(2.0)


def test_an_all_to_all_crosses_with_what_its_peers_are_elsewhere() -> None:
    """Two nodes of 8: 8 of 15 parts leave through a NIC of 10 GB/s each."""
    machine = cluster(nodes=2)
    cost = collective("all_to_all", GIGA, across(machine, 2, 8), machine)
    assert cost.full_s == pytest.approx(8 / 16 / 10)
    tapered = replace(machine, scale_out=replace(machine.scale_out, pod=8, oversubscription=4.0))
    assert collective("all_to_all", GIGA, across(machine, 2, 8), tapered).full_s == pytest.approx(4 * cost.full_s)


def test_a_ring_feels_oversubscription_only_where_few_of_its_members_share_a_pod() -> None:
    """Of 8 members in a pod one sends out, so uplinks of a quarter do; of 2 members they halve the ring."""
    machine = cluster(nodes=4)
    tapered = replace(machine, scale_out=replace(machine.scale_out, pod=8, oversubscription=4.0))
    whole, pairs = across(machine, 4, 8), across(machine, 4, 2)
    assert collective("all_gather", GIGA, whole, tapered).full_s == pytest.approx(collective("all_gather", GIGA, whole, machine).full_s)
    assert collective("all_gather", GIGA, pairs, tapered).full_s == pytest.approx(2 * collective("all_gather", GIGA, pairs, machine).full_s)


def test_a_group_beyond_its_island_has_what_joins_the_islands() -> None:
    """A bridged pair has the bridge; four cards have what goes between pairs."""
    machine = cluster(up=fabric(domain=4, island=2, island_bytes_per_s=20 * GIGA))
    assert collective("all_reduce", GIGA, inside(2), machine).full_s == pytest.approx(10e-3)
    assert collective("all_reduce", GIGA, inside(4), machine).full_s == pytest.approx(75e-3)


def test_a_mesh_has_the_links_between_its_members() -> None:
    """Two of eight fully joined accelerators share one of seven links."""
    machine = cluster(up=fabric(topology="mesh"))
    assert collective("all_gather", GIGA, inside(2), machine).full_s == pytest.approx(0.5 / (100 / 7))


def test_quick_protocols_serve_small_messages() -> None:
    """LL starts in 1 us and moves a tenth; the full rate starts in 50 us: they meet where both take as long."""
    machine = cluster(up=fabric(base_latency_s=50 * US, ll=Protocol(base_latency_s=1 * US, step_latency_s=0.0, efficiency=0.1)))
    assert collective("all_gather", 1.0, inside(8), machine).total_s == pytest.approx(1 * US, rel=1e-3)
    meeting = 49 * US / (9 * 7 / 8 / (100 * GIGA))
    assert collective("all_gather", 0.9 * meeting, inside(8), machine).latency_s == pytest.approx(1 * US)
    assert collective("all_gather", 1.1 * meeting, inside(8), machine).latency_s == pytest.approx(50 * US)


def test_one_rank_or_no_bytes_cost_nothing() -> None:
    """Nothing is sent."""
    assert collective("all_reduce", GIGA, inside(1), cluster()).total_s == 0.0
    assert collective("all_reduce", 0.0, inside(8), cluster()).total_s == 0.0


def test_a_send_has_its_own_latency() -> None:
    """One step, where a fabric does not say another."""
    machine = up(cluster(), step_latency_s=2 * US)
    assert send(GIGA, machine, crosses=False, flows=1).latency_s == pytest.approx(2 * US)
    assert send(GIGA, up(machine, point_to_point_latency_s=7 * US), crosses=False, flows=1).latency_s == pytest.approx(7 * US)


# ── properties, over the library ────────────────────────────────────────────────────────────────────────────────────────────────

MACHINES = {name: load_cluster(f"{name}:64") for name in LIBRARY}
SPANS = st.tuples(st.sampled_from([1, 2, 3, 4, 8, 64]), st.sampled_from([1, 2, 4, 8]))


def span_of(machine: Cluster, domains: int, per_domain: int) -> Span | None:
    per_domain = min(per_domain, machine.node.scale_up.domain)
    if domains * per_domain < 2:
        return None
    return inside(per_domain) if domains == 1 else across(machine, domains, per_domain)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.sampled_from(LIBRARY), st.sampled_from(KINDS), SPANS, SIZES, st.floats(min_value=1.0, max_value=3.0))
def test_more_bytes_never_take_less_and_time_never_jumps(name: str, kind: str, lie: tuple[int, int], size: float, more: float) -> None:
    """Time is rising and concave in bytes: k times the bytes take at most k times as long, at any change of algorithm."""
    span = span_of(MACHINES[name], *lie)
    if span is not None:
        short, long = (collective(kind, bytes_, span, MACHINES[name]).total_s for bytes_ in (size, size * more))
        assert short <= long * (1 + 1e-12)
        assert long <= more * short * (1 + 1e-12)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.sampled_from(LIBRARY), st.sampled_from(KINDS), SPANS, SIZES, st.floats(min_value=1.0, max_value=4.0))
def test_more_bandwidth_is_never_slower(name: str, kind: str, lie: tuple[int, int], size: float, more: float) -> None:
    """Of the ports, and of the NICs."""
    machine = MACHINES[name]
    span = span_of(machine, *lie)
    if span is not None:
        before = collective(kind, size, span, machine).total_s
        node = machine.node
        wider = up(machine, bandwidth_bytes_per_s=node.scale_up.bandwidth_bytes_per_s * more)
        assert collective(kind, size, span, wider).total_s <= before * (1 + 1e-12)
        faster = replace(span, network_bytes_per_s=span.network_bytes_per_s * more)
        assert collective(kind, size, faster, machine).total_s <= before * (1 + 1e-12)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.sampled_from(LIBRARY), st.sampled_from(KINDS), SPANS, SIZES)
def test_no_link_carries_more_than_its_rate(name: str, kind: str, lie: tuple[int, int], size: float) -> None:
    """A rank's port, the NICs of a node, and the bus bandwidth but for reductions in the switch."""
    machine = MACHINES[name]
    span = span_of(machine, *lie)
    if span is None:
        return
    cost = collective(kind, size, span, machine)
    port = machine.node.scale_up.bandwidth_bytes_per_s
    assert cost.port_bytes_per_s <= port * (1 + 1e-12)
    if span.domains > 1:
        assert cost.network_bytes_per_s * span.per_domain <= span.network_bytes_per_s * (1 + 1e-12)
    best = choice(kind, size, span, machine)
    if span.per_domain > 1 and not best.algorithm.startswith("in-switch"):
        leaving = (span.ranks - 1) / (span.per_domain - 1) if kind == "all_to_all" else 1.0
        assert best.bytes_per_s <= port * leaving * (1 + 1e-12)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.sampled_from(["dgx-a100-80gb", "dgx-h100", "dgx-1v-16gb", "dgx-b200"]), st.sampled_from(KINDS), st.sampled_from([2, 4]), SIZES)
def test_a_slower_tier_never_speeds_a_collective(name: str, kind: str, domains: int, size: float) -> None:
    """Eight ranks in one node against the same eight over two or four."""
    machine = MACHINES[name]
    together = collective(kind, size, inside(8), machine).total_s
    assert together <= collective(kind, size, across(machine, domains, 8 // domains), machine).total_s * (1 + 1e-9)


NODES = sorted({*list_nodes()})


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.sampled_from(NODES), st.sampled_from([kind for kind in KINDS if kind != "all_to_all"]), st.sampled_from([2, 4, 8]),
    st.floats(0.01, 1.0), st.floats(1.0, 10.0), SIZES,
)  # fmt: skip
def test_a_ring_over_a_slower_tier_is_never_quicker(
    name: str, kind: str, domains: int, narrower: float, later: float, size: float
) -> None:  # fmt: skip
    """Any node of the library with a switch: its ranks spread over domains that links of no more bandwidth and no less latency join."""
    machine = load_cluster(f"{name}:64")
    own, ranks = machine.node.scale_up, min(machine.node.scale_up.domain, 8)
    if ranks % domains or ranks < 2 or own.topology != "switch":
        return
    link = replace(
        own, topology="fat-tree", domain=10**9, base_latency_s=later * own.base_latency_s, step_latency_s=later * own.step_latency_s
    )  # fmt: skip
    apart = own.island and ranks > own.island  # a group beyond its island of bridged cards goes over the host already
    # Between islands a ring has one path of that plateau, however many ranks it has; a switch gives each rank its own.
    share = narrower * (own.island_bytes_per_s if apart else own.bandwidth_bytes_per_s * ranks / domains)
    spread = Span(ranks=ranks, domains=domains, per_domain=ranks // domains, network_bytes_per_s=share)
    wire = wire_share(kind, ranks) * size
    (near_s, near), (far_s, far) = (
        by_name(kind, inside(ranks), machine)["ring"], by_name(kind, spread, replace(machine, scale_out=link))["ring"],
    )  # fmt: skip
    assert near_s + wire / near <= (far_s + wire / far) * (1 + 1e-9)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.sampled_from(NODES), st.sampled_from(KINDS), SPANS, SIZES, st.floats(min_value=1.0, max_value=100.0))
def test_with_a_fixed_algorithm_more_bytes_never_take_less(
    name: str, kind: str, lie: tuple[int, int], size: float, more: float
) -> None:  # fmt: skip
    """Each algorithm and protocol of every node by itself, and so the least of them."""
    machine = load_cluster(f"{name}:64")
    span = span_of(machine, *lie)
    if span is None:
        return
    wire = wire_share(kind, span.ranks)
    for option in options(kind, span, machine.node.scale_up, machine.scale_out, machine.node.accelerators, 1.0):
        times = [option.latency_s + wire * bytes_ / option.bytes_per_s for bytes_ in (size, size * more)]
        assert 0.0 < times[0] <= times[1]


@pytest.mark.parametrize("name", LIBRARY)
def test_large_messages_fill_what_limits_them(name: str) -> None:
    """A lone gather at its plateau occupies a whole port, or the group's whole share of the NICs, where rings go."""
    machine = MACHINES[name]
    span, fabric_up = across(machine, 4, 2), machine.node.scale_up
    cost = collective("all_gather", 1e12, span, machine)
    shares = (cost.port_bytes_per_s / fabric_up.bandwidth_bytes_per_s, cost.network_bytes_per_s * 2 / span.network_bytes_per_s)
    assert max(shares) == pytest.approx(1.0) or fabric_up.library == "xla"


def test_a_cost_takes_microseconds() -> None:
    """The engine asks for thousands of them."""
    machine = MACHINES["dgx-h100"]
    span = across(machine, 8, 8)
    collective("all_reduce", 1e6, span, machine)
    start = time.perf_counter()
    for size in range(1000):
        collective("all_reduce", 1e6 + size, span, machine)
    assert (time.perf_counter() - start) / 1000 < 60 * US
