"""Clocks and caps of every accelerator: what a cap allows, what a clock costs, and where the least energy lies."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import UsageError
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import list_accelerators, list_nodes, load_accelerator, load_cluster, load_node
from foretrain.hardware.power import operated, voltage
from foretrain.models.model import Model
from foretrain.sim.meter import mean_of, metered
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from tests.sim import hand
from tests.sim.cases import Case, cases

ALL = {name: load_accelerator(name) for name in list_accelerators()}
CLOCKED = {name: chip for name, chip in ALL.items() if chip.power.clocks is not None}
NODES = {load_node(name).accelerator.key: name for name in reversed(list_nodes())}
KINDS = {"compute-bound": (8192, 8192), "memory-bound": (16, 8192), "mixed": (256, 4096)}
"""Tokens and width of the products of a job."""
OVERSHOOT = 1.02
ROUNDING = 1e-7
"""How finely a controller is told the clock: to a ten-millionth of its range."""
some = settings(deadline=None, derandomize=True, max_examples=60)


def machine(chip: Accelerator, accelerators: int = 8) -> Cluster:
    """Return as many nodes of the library as hold so many of an accelerator, the first that carries it."""
    node = load_node(NODES[chip.key])
    return load_cluster(f"{NODES[chip.key]}:{-(-accelerators // node.accelerators)}")


def precision(chip: Accelerator) -> str:
    return next(name for name in ("bf16", "fp16", "fp32") if name in chip.peak_flop_per_s)


def job(kind: str) -> Model:
    tokens, width = KINDS[kind]
    return hand.linear_model(layers=4, tokens=tokens, width=width)


def played(chip: Accelerator, kind: str, cap_w: float | None = None, clock_hz: float | None = None) -> Prediction:
    cluster = operated(machine(chip), cap_w=cap_w, clock_hz=clock_hz)
    return simulate(job(kind), cluster, Plan(), Recipe(global_batch=4, precision=precision(chip)), software=hand.software())


def clocks_of(chip: Accelerator, count: int = 12) -> list[float]:
    """Return clocks over the whole range, the knee and the reference among them."""
    clocks = chip.power.clocks
    assert clocks is not None
    return sorted({*np.linspace(clocks.lowest_hz, clocks.highest_hz, count).tolist(), clocks.knee_hz, clocks.reference_hz})


# ── caps ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@some
@given(st.sampled_from(sorted(CLOCKED)), st.floats(0.1, 1.0), cases(most_microbatches=6), st.sampled_from(("segment", "op")))
def test_no_accelerator_draws_more_than_its_cap(name: str, share: float, case: Case, detail: str) -> None:
    """Over the step, and over any pass or window of the controller, whichever is longer: at most 2 % more, whatever runs."""
    chip = CLOCKED[name]
    cap_w = chip.power.idle_w + share * (chip.power.limit_w - chip.power.idle_w)
    cluster = operated(machine(chip, case.plan.ranks), cap_w=cap_w)
    predicted = replace(case, cluster=cluster, recipe=replace(case.recipe, precision=precision(chip))).predict(detail)
    assert predicted.power["accelerator_mean_w"] <= OVERSHOOT * cap_w
    assert predicted.power["accelerator_peak_w"] <= OVERSHOOT * cap_w


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.sampled_from(sorted(CLOCKED)), st.floats(0.1, 1.0), st.sampled_from(sorted(KINDS)))
def test_no_window_of_even_work_draws_more_than_the_cap(name: str, share: float, kind: str) -> None:
    """Of a job whose kernels are alike, whole micro-batches over at least the controller's window stay below the cap.

    What it averages is a round trip of a micro-batch: a window that cuts one may hold more of its forward pass.
    """
    chip = CLOCKED[name]
    power, clocks = chip.power, chip.power.clocks
    assert clocks is not None
    cap_w = power.idle_w + share * (power.limit_w - power.idle_w)
    timeline = played(chip, kind, cap_w=cap_w).timeline()
    edges = [0.0]
    for start_s in (*(one.start_s for one in timeline.slices if one.name == "forward"), timeline.step_s):
        if start_s - edges[-1] >= clocks.window_s:
            edges.append(start_s)
    edges[-1 if len(edges) > 1 else 1 :] = [timeline.step_s]
    for curve in metered(timeline, power.idle_w, np.array(edges)):
        assert curve.max() <= OVERSHOOT * cap_w


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLOCKED)
def test_a_cap_at_the_limit_changes_nothing_and_lower_caps_cost_time(name: str, kind: str) -> None:
    """The limit is what an accelerator runs under anyway; below it, time never falls and mean power follows."""
    chip = CLOCKED[name]
    # The A100 of 500 W is held at its highest clock from the start, which a cap may then lower.
    free = played(chip, kind)
    power = chip.power
    caps = [power.idle_w + share * (power.limit_w - power.idle_w) for share in (1.0, 0.6, 0.3, 0.05)]
    steps = [played(chip, kind, cap_w=cap_w) for cap_w in caps]
    assert steps[0].step_s == pytest.approx(free.step_s, rel=1e-6)
    assert all(later.step_s >= earlier.step_s * (1 - ROUNDING) for earlier, later in pairwise(steps))
    for cap_w, step in zip(caps, steps, strict=True):
        assert step.power["accelerator_mean_w"] <= OVERSHOOT * cap_w


# ── clocks ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLOCKED)
def test_a_lower_clock_is_never_faster_and_energy_has_one_minimum(name: str, kind: str) -> None:
    """An accelerator's joules fall to one clock and rise from it: below, idle power costs more; above, voltage does."""
    chip = CLOCKED[name]
    steps = [played(chip, kind, clock_hz=clock) for clock in clocks_of(chip)]
    assert all(faster.step_s <= slower.step_s * (1 + ROUNDING) for slower, faster in pairwise(steps))
    joules = [sum(step.energy[part] for part in ("idle", "math", "memory", "busy")) for step in steps]
    least = int(np.argmin(joules))
    slack = ROUNDING * joules[least]
    assert all(right <= left + slack for left, right in pairwise(joules[: least + 1]))
    assert all(right >= left - slack for left, right in pairwise(joules[least:]))


@pytest.mark.parametrize("name", CLOCKED)
def test_voltage_is_flat_to_the_knee_and_rises_to_the_highest(name: str) -> None:
    """Guerreiro et al., HPCA 2018, figure 2."""
    clocks = CLOCKED[name].power.clocks
    assert clocks is not None
    assert voltage(clocks, clocks.lowest_hz) == voltage(clocks, clocks.knee_hz) == 1.0
    assert voltage(clocks, clocks.highest_hz) == pytest.approx(clocks.highest_voltage)
    volts = [voltage(clocks, clock) for clock in clocks_of(CLOCKED[name])]
    assert volts == sorted(volts)


def test_a_product_at_half_the_clock_by_hand() -> None:
    """With 80 % of math on the clock, half the clock takes 1.8 times as long; below the knee its joules stay, busy watts halve."""
    chip = CLOCKED["a100-sxm-80gb"]
    clocks = chip.power.clocks
    assert clocks is not None
    at_knee, half = (played(chip, "compute-bound", clock_hz=clock) for clock in (clocks.knee_hz, clocks.knee_hz / 2))
    reference = clocks.reference_hz / clocks.knee_hz
    stretch = (1 - clocks.math_share + clocks.math_share * 2 * reference) / (1 - clocks.math_share + clocks.math_share * reference)
    assert half.breakdown["math"] / at_knee.breakdown["math"] == pytest.approx(stretch)
    assert half.energy["math"] == pytest.approx(at_knee.energy["math"])
    assert half.energy["memory"] == pytest.approx(at_knee.energy["memory"])
    assert half.energy["busy"] / half.step_s == pytest.approx(at_knee.energy["busy"] / at_knee.step_s / 2, rel=1e-2)
    assert half.clock_hz == pytest.approx(clocks.knee_hz / 2)


# ── what is refused, and what a meter shows ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", sorted(set(ALL) - set(CLOCKED)))
def test_an_accelerator_without_clocks_is_not_operated(name: str) -> None:
    """The refusal names it, and what its profile lacks."""
    for setting in ({"cap_w": 0.9 * ALL[name].power.limit_w}, {"clock_hz": 1e9}):
        with pytest.raises(UsageError, match=r"power\.clocks") as refused:
            operated(machine(ALL[name]), **setting)
        assert ALL[name].name in str(refused.value)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(cases(most_microbatches=6), st.sampled_from((None, 150.0, 300.0)), st.integers(1, 40))
def test_windows_of_a_meter_hold_the_energy_of_the_accelerators(case: Case, cap_w: float | None, windows: int) -> None:
    """However a step is cut, the windows' power times their length, over all accelerators, is the energy at their meters."""
    cluster = operated(case.cluster, cap_w=cap_w)
    predicted = replace(case, cluster=cluster).predict()
    timeline = predicted.timeline()
    edges_s = np.linspace(0.0, timeline.step_s, windows + 1)
    mean_w = mean_of(timeline, metered(timeline, cluster.accelerator.power.idle_w, edges_s))
    joules = float(np.sum(mean_w * np.diff(edges_s))) * predicted.accelerators
    assert joules == pytest.approx(sum(predicted.energy[part] for part in ("idle", "math", "memory", "links", "busy")), rel=1e-9)


def test_a_cap_of_a_whole_job_holds_and_costs_time() -> None:
    """GPT-2 on eight A100 at 400, 300 and 200 W: each slower than the one before, none above its cap."""
    case = Case(
        model=hand.linear_model(layers=8, tokens=8192, width=8192), cluster=load_cluster("dgx-a100-80gb:1"), plan=Plan(dp=8),
        recipe=Recipe(global_batch=16), software=load_software("megatron-lm"),
    )  # fmt: skip
    steps = [replace(case, cluster=operated(case.cluster, cap_w=cap_w)).predict() for cap_w in (400.0, 300.0, 200.0)]
    assert steps[0].step_s < steps[1].step_s < steps[2].step_s
    assert all(step.power["accelerator_peak_w"] <= OVERSHOOT * cap_w for step, cap_w in zip(steps, (400.0, 300.0, 200.0), strict=True))
