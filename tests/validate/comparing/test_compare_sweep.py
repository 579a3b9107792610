"""Every instant in one class, against closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.validate.comparing.nesting import calls
from foretrain.validate.comparing.sweep import COMMUNICATION, PRIORITY, Piece, sweep
from foretrain.validate.comparing.trace_file import Event


def piece(kind: str, start_s: float, end_s: float, launched_s: float | None = None) -> Piece:
    return Piece(kind, "", "", "", start_s, end_s, launched_s)


def test_compute_hides_communication() -> None:
    """An all-reduce from 2 to 8 beside products from 0 to 5: 3 s exposed, 3 s hidden, and the rest to 10 is the host's."""
    swept = sweep([piece("math", 0, 5), piece("data_parallel", 2, 8)], 0, 10)
    assert {name: seconds for name, seconds in swept.breakdown.items() if seconds} == {"math": 5, "data_parallel": 3, "host": 2}
    assert swept.hidden == {"data_parallel": 3}


@pytest.mark.parametrize(("launched_s", "kind"), [(0.5, "overhead"), (1.0, "overhead"), (1.5, "host"), (None, "host")])
def test_a_gap_is_the_hosts_unless_what_follows_was_asked_for(launched_s: float | None, kind: str) -> None:
    """A kernel launched before the gap began kept the device waiting for nothing but itself."""
    swept = sweep([piece("math", 0, 1), piece("memory", 3, 4, launched_s)], 0, 4)
    assert swept.breakdown[kind] == 2
    assert sweep([piece("math", 0, 1)], 0, 3, launched_s).breakdown[kind] == 2


PIECES = st.lists(
    st.tuples(st.sampled_from(PRIORITY), st.floats(-2, 12), st.floats(0, 8)).map(lambda one: piece(one[0], one[1], one[1] + one[2])),
    max_size=12,
)


@settings(deadline=None, derandomize=True)
@given(PIECES)
def test_classes_sum_to_the_step_and_hide_no_more_than_ran(pieces: list[Piece]) -> None:
    """Whatever overlaps, the classes sum to the 10 s, and of each kind what is exposed and hidden is its union."""
    swept = sweep(pieces, 0, 10)
    assert sum(swept.breakdown.values()) == pytest.approx(10)
    assert all(seconds >= 0 for seconds in swept.breakdown.values())
    for kind in COMMUNICATION:
        longest = sum(max(0.0, min(one.end_s, 10) - max(one.start_s, 0)) for one in pieces if one.kind == kind)
        assert swept.hidden.get(kind, 0.0) >= -1e-9
        assert swept.breakdown[kind] + swept.hidden.get(kind, 0.0) <= longest + 1e-9


def event(name: str, start_s: float, end_s: float) -> Event:
    return Event(name, "cpu_op", ("9", "1"), start_s, end_s, {})


def test_an_op_works_itself_where_nothing_inside_it_does() -> None:
    """Linear from 0 to 10 with addmm from 2 to 9, and in it copy from 3 to 4: 3, 6 and 1 s of their own."""
    found = {call.event.name: call for call in calls([event("linear", 0, 10), event("addmm", 2, 9), event("copy", 3, 4)])}
    assert found["linear"].own == ((0, 2), (9, 10))
    assert found["addmm"].own == ((2, 3), (4, 9))
    assert found["copy"].own == ((3, 4),)
    assert [one.name for one in found["copy"].around] == ["linear", "addmm"]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 4)), max_size=15))
def test_own_stretches_are_the_union_of_a_thread(spans: list[tuple[float, float]]) -> None:
    """Every instant in which a thread was in some op belongs to exactly one, even where recorded ends are a little off."""
    events = [event(str(number), start_s, start_s + lasts_s) for number, (start_s, lasts_s) in enumerate(spans)]
    own = sum(end_s - start_s for call in calls(events) for start_s, end_s in call.own)
    covered = sweep([piece("math", one.start_s, one.end_s) for one in events], 0, 20).breakdown["math"]
    assert own == pytest.approx(covered)
