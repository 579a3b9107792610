"""Scaling sweeps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from foretrain.errors import UsageError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.models.load import load_model
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.sim.sweep import ScalingPoint, efficiency, scaling, summarise

PLAN, RECIPE = Plan(tp=2), Recipe(global_batch=64)


def cluster_at(nodes: int) -> Cluster:
    """Return nodes of eight A100."""
    return load_cluster(f"dgx-a100-80gb:{nodes}")


def sweep(*nodes: int, mode: str = "strong") -> tuple[ScalingPoint, ...]:
    """Return GPT-2 on these node counts."""
    return scaling(load_model("gpt2"), cluster_at, PLAN, RECIPE, nodes, mode)


def test_a_point_is_what_simulate_says() -> None:
    """The sweep adds nothing of its own."""
    (point,) = sweep(2)
    expected = simulate(load_model("gpt2"), cluster_at(2), Plan(dp=8, tp=2), RECIPE)
    assert point.summary == summarise(expected)


def test_strong_keeps_the_batch_and_weak_grows_it() -> None:
    """From 2 to 8 nodes a batch of 64 stays 64, or becomes 256."""
    points = sweep(2, 8, mode="both")
    assert [(point.mode, point.nodes, point.global_batch) for point in points] == [
        ("strong", 2, 64), ("strong", 8, 64), ("weak", 2, 64), ("weak", 8, 256),
    ]  # fmt: skip


def test_efficiency_is_one_at_the_smallest_count_and_the_textbook_ratio_beyond() -> None:
    """Strong: t1·n1 / (t·n). Weak: t1 / t."""
    points = sweep(1, 4, mode="both")
    ratios = list(efficiency(points))
    times = [point.summary.step_s for point in points if point.summary]
    assert ratios[0] == ratios[2] == 1.0
    assert ratios[1] == pytest.approx(times[0] / (4 * times[1]))
    assert ratios[3] == pytest.approx(times[2] / times[3])


def test_what_cannot_be_placed_has_a_reason_and_no_efficiency() -> None:
    """64 sequences do not divide by 12 replicas."""
    points = sweep(1, 3)
    assert points[1].summary is None
    assert "global batch 64" in points[1].reason
    assert list(efficiency(points)) == [1.0, None]


def test_weak_batches_that_are_no_whole_number_are_left_out() -> None:
    """A batch of 64 at 3 nodes is 85.3 at 4."""
    points = scaling(load_model("gpt2"), cluster_at, PLAN, Recipe(global_batch=64), (3, 4), "weak")
    assert "no whole number" in points[1].reason


def test_an_executor_gives_the_same_points() -> None:
    """Serial and pooled agree to the last bit, in the same order."""
    nodes = tuple(range(1, 12))
    with ThreadPoolExecutor(2) as pool:
        pooled = scaling(load_model("gpt2"), cluster_at, PLAN, RECIPE, nodes, "both", executor=pool)
    assert pooled == sweep(*nodes, mode="both")


@pytest.mark.parametrize("nodes", [(), (0, 1), (-1,)])
def test_counts_that_are_none_are_refused(nodes: tuple[int, ...]) -> None:
    """Node counts begin at 1."""
    with pytest.raises(UsageError, match="from 1"):
        scaling(load_model("gpt2"), cluster_at, PLAN, RECIPE, nodes)


def test_an_unknown_mode_is_refused_with_the_nearest() -> None:
    """A slip of the finger is answered."""
    with pytest.raises(UsageError, match="'strong'"):
        sweep(1, mode="stronk")
