"""Links: max-min fair shares, by hand and as a property, and no link above its capacity."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from foretrain.sim.engine import Engine
from foretrain.sim.links import Link, Network, Transfer, fair_speeds
from foretrain.sim.program import Job
from tests.sim.cases import Case, cases, irregular
from tests.sim.jobs import transfer

quick = settings(deadline=None, derandomize=True, max_examples=80)


class Line:
    """One link of 1 B/s, and what is sent over it when."""

    def __init__(self, capacity: float = 1.0) -> None:
        self.env = Environment()
        self.network = Network(self.env)
        self.link = Link("line", capacity)
        self.sent: list[Transfer] = []

    def send(self, at: float, seconds: float, demand: float = 1.0, latency_s: float = 0.0) -> None:
        """Start a transfer that takes `seconds` alone and asks for `demand` meanwhile."""
        cost = transfer(seconds, latency_s=latency_s, port=demand, wire_bytes=seconds * demand)

        def begin(_event: object) -> None:
            self.sent.append(self.network.start(cost, ((self.link, demand),)))

        self.env.timeout(at).callbacks.append(begin)

    def arrivals(self) -> list[float]:
        """Return when each transfer arrived."""
        self.env.run()
        return [each.arrival for each in self.sent]


def test_a_transfer_alone_takes_its_time() -> None:
    """Latency plus bytes over bandwidth."""
    line = Line()
    line.send(0.0, 3.0, latency_s=0.5)
    assert line.arrivals() == [3.5]
    assert line.network.shares == 0


def test_two_transfers_take_half_of_the_link_each() -> None:
    """4 and 4 from t = 0 both end at 8; 4 from 0 and 4 from 2: the first has 2 left, gets them by 6, the other then has 2 left."""
    line = Line()
    line.send(0.0, 4.0)
    line.send(0.0, 4.0)
    assert line.arrivals() == [8.0, 8.0]
    line = Line()
    line.send(0.0, 4.0)
    line.send(2.0, 4.0)
    assert line.arrivals() == [6.0, 8.0]


def test_a_third_that_leaves_gives_its_share_back() -> None:
    """1, 4 and 4 from t = 0: thirds until 3, when the first is done; the others have 3 left at a half each: 9."""
    line = Line()
    for size in (1.0, 4.0, 4.0):
        line.send(0.0, size)
    assert line.arrivals() == pytest.approx([3.0, 9.0, 9.0])


def test_latency_is_not_shared() -> None:
    """Two transfers of 1 s and 10 s latency share the link for 2 s and nothing after it; a third in that time has the link alone."""
    line = Line()
    line.send(0.0, 1.0, latency_s=10.0)
    line.send(0.0, 1.0, latency_s=10.0)
    line.send(3.0, 5.0)
    assert line.arrivals() == pytest.approx([12.0, 12.0, 8.0])


def test_a_modest_transfer_keeps_what_it_asks_for() -> None:
    """One asks for a fifth of the link, one for all: the first loses nothing, the second runs at four fifths."""
    line = Line()
    line.send(0.0, 10.0, demand=0.2)
    line.send(0.0, 8.0)
    assert line.arrivals() == pytest.approx([10.0, 10.0])


def test_transfers_that_fit_cost_no_sharing() -> None:
    """A third, a third and a third of a link."""
    line = Line()
    for _ in range(3):
        line.send(0.0, 1.0, demand=1 / 3)
    assert line.arrivals() == [1.0, 1.0, 1.0]
    assert line.network.shares == 0


def test_a_transfer_of_no_length_slows_nobody() -> None:
    """Latency alone shares no link, whatever rate it names."""
    line = Line()
    line.send(0.0, 4.0)
    line.send(1.0, 0.0, latency_s=1.0)
    assert line.arrivals() == [4.0, 2.0]


@quick
@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.01, 5.0), st.floats(0.1, 1.0)), min_size=2, max_size=8))
def test_a_crowded_link_works_through_its_bytes(sends: list[tuple[float, float, float]]) -> None:
    """No byte is lost or carried twice: the last is there no sooner than the bytes need, no later than one after the other."""
    line = Line()
    for at, seconds, demand in sends:
        line.send(at, seconds, demand=demand)
    last = max(line.arrivals())
    assert last >= max(at + seconds for at, seconds, _ in sends) * (1 - 1e-12)
    assert last >= (min(at for at, _, _ in sends) + sum(seconds * demand for _, seconds, demand in sends)) * (1 - 1e-9)
    assert last <= (max(at for at, _, _ in sends) + sum(seconds for _, seconds, _ in sends)) * (1 + 1e-9)


@st.composite
def networks(draw: st.DrawFn) -> list[Transfer]:
    """Draw transfers over random links, each with its own rate and a number of flows on each link."""
    links = [Link(f"link {n}", draw(st.floats(0.5, 10.0))) for n in range(draw(st.integers(1, 5)))]
    group = []
    for _ in range(draw(st.integers(1, 8))):
        rate = draw(st.floats(0.1, 10.0))
        used = draw(st.lists(st.sampled_from(links), min_size=1, max_size=3, unique=True))
        demands = tuple((link, rate * draw(st.integers(1, 4))) for link in used)
        group.append(Transfer(transfer(1.0, wire_bytes=rate), demands, 0.0))
    return group


@quick
@given(networks())
def test_speeds_are_max_min_fair(group: list[Transfer]) -> None:
    """No link is overfull, and who is slowed has a full link on which nobody goes faster.

    Bertsekas and Gallager, Data Networks (1992), section 6.5.2: a feasible vector is max-min fair if and only if every flow has a
    bottleneck link.
    """
    speeds = fair_speeds(group)
    carried: dict[Link, float] = {}
    for each, speed in zip(group, speeds, strict=True):
        for link, demand in each.links:
            carried[link] = carried.get(link, 0.0) + demand * speed
    assert all(amount <= link.capacity * (1 + 1e-9) for link, amount in carried.items())
    rates = [each.rate * speed for each, speed in zip(group, speeds, strict=True)]
    for each, speed, rate in zip(group, speeds, rates, strict=True):
        assert speed <= 1.0 + 1e-9
        if speed < 1.0 - 1e-9:
            full = [link for link, _ in each.links if carried[link] >= link.capacity * (1 - 1e-6)]
            assert any(all(r <= rate * (1 + 1e-6) for o, r in zip(group, rates, strict=True) if _uses(o, link)) for link in full)


def _uses(each: Transfer, link: Link) -> bool:
    return any(other is link for other, _ in each.links)


class Watched(Network):
    """A network that looks at every link whenever anything on it has changed, and sums the bytes that each link carries."""

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.worst = 0.0
        self.known: list[tuple[Transfer, float]] = []

    def start(self, cost: Any, links: Any) -> Transfer:
        """Start a transfer, then look."""
        begun = super().start(cost, links)
        self.known.append((begun, cost.full_s))
        self._look([link for link, _ in links])
        return begun

    def _ended(self, transfer: Transfer, fired: Any) -> None:
        super()._ended(transfer, fired)
        self._look([link for link, _ in transfer.links])

    def _look(self, links: list[Link]) -> None:
        now = self.env.now
        for link in {link for begun in links for user in begun.users for link, _ in user.links} | set(links):
            live = [user for user in link.users if user.end > now and not user.ended]
            carried = sum(demand * user.speed for user in live for other, demand in user.links if other is link)
            self.worst = max(self.worst, carried / link.capacity)


def watched(job: Job, *, ops: bool = False) -> Watched:
    """Return the network of a job that was played, having looked at it all along."""
    engine = Engine(job, ops=ops)
    engine.network = network = Watched(engine.env)
    engine.play()
    return network


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.one_of(cases(overlap=True), irregular()), st.sampled_from(("segment", "op")))
def test_no_link_ever_carries_more_than_its_capacity(case: Case, detail: str) -> None:
    """Demand times speed, summed over what is under way, after every start and end of a transfer."""
    network = watched(case.lowered().job, ops=detail == "op")
    assert network.worst <= 1 + 1e-9


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.one_of(cases(overlap=True), irregular()))
def test_a_shared_transfer_is_never_shorter_than_alone(case: Case) -> None:
    """Sharing only slows: every transfer takes at least its time at full rate, and exactly that where it never shared."""
    for each, full_s in watched(case.lowered().job).known:
        taken = each.end - each.started
        assert taken >= full_s - 1e-12 * each.end
        if not each.shared:
            assert taken == pytest.approx(full_s, abs=1e-12 * max(each.end, full_s))
