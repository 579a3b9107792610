"""The data-parallel degree that fills a cluster."""

from __future__ import annotations

import pytest

from foretrain.errors import PlanError
from foretrain.hardware.load import load_cluster
from foretrain.sim.fill import fill
from foretrain.sim.plan import Plan


@pytest.mark.parametrize(("tp", "pp", "dp"), [(1, 1, 16), (8, 1, 2), (2, 4, 2), (8, 2, 1)])
def test_dp_is_accelerators_over_tp_times_pp(tp: int, pp: int, dp: int) -> None:
    """Sixteen accelerators, all of them used."""
    assert fill(Plan(tp=tp, pp=pp), load_cluster("dgx-a100-80gb:2")).dp == dp


def test_what_does_not_divide_is_answered_with_what_does() -> None:
    """Degrees of tp × pp = 24 of 16 and 6 of 16."""
    cluster = load_cluster("dgx-a100-80gb:2")
    with pytest.raises(PlanError, match="at least 3 nodes"):
        fill(Plan(tp=8, pp=3), cluster)
    with pytest.raises(PlanError, match="pp of 1, 2, 4"):
        fill(Plan(tp=2, pp=3), cluster)
