"""Verdicts on measured steps: what is said of each, what they come to, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foretrain.errors import PlanError, UsageError
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.validate.case import Case, Net, case_data
from foretrain.validate.compare import case_named, compare_records, machine_of
from foretrain.validate.comparing.verdict import Verdict
from foretrain.validate.comparing.verdict_summary import report_data, verdict_summary
from foretrain.validate.comparing.verdict_text import format_report, format_verdicts
from foretrain.validate.records import Record, append_record
from tests.validate.comparing.jobs import predicted

STEP_S = 0.2
FACTORS = {"close": 1.02, "short": 0.88, "far": 1.5}
"""What the fake prediction of each case is, over the measured time."""


def case(name: str, *, kind: str = "gpt", plan: Plan | None = None, precision: str = "fp32") -> Case:
    return Case(name=name, net=Net(kind=kind), plan=plan or Plan(), recipe=Recipe(global_batch=8, precision=precision))


def record(one: Case, **data: Any) -> Record:
    """Return a measured step of a case."""
    spread = {"median": STEP_S, "q1": 0.19, "q3": 0.21, "repeats": 9}
    ranks = one.plan.ranks
    return Record(kind="step", key=one.name, data={
        "case": case_data(one), "device": "cuda", "world_size": ranks, "step_s": spread, "losses": [2.0, 1.9], **data,
    })  # fmt: skip


def predict(one: Case) -> Prediction:
    """Return a fake prediction, so much off; none of a case that is called impossible."""
    if one.name == "impossible":
        raise PlanError("cp=2 cuts nothing here\nuse cp=1")
    return replace(predicted(one.plan), step_s=STEP_S * FACTORS.get(one.name, 1.0))


def verdict(one: Case, **data: Any) -> Verdict:
    return compare_records([record(one, **data)], predict)[0]


def test_the_worst_comes_first_and_what_has_no_error_last() -> None:
    """Sorted by the size of the error; a case that cannot be predicted and one whose run failed are told with their reasons."""
    failed = Record(kind="step", key="broken", data={"case": case_data(case("broken")), "skipped": "Traceback\nCUDA out of memory"})
    found = compare_records([*(record(case(name)) for name in ("close", "impossible", "far", "short")), failed], predict)
    assert [(one.name, one.word) for one in found] == [
        ("far", "poor"), ("short", "fair"), ("close", "good"), ("impossible", "not predicted"), ("broken", "not measured"),
    ]  # fmt: skip
    assert [one.error_pct for one in found] == [pytest.approx(50), pytest.approx(-12), pytest.approx(2), None, None]
    assert [one.reason for one in found[3:]] == ["cp=2 cuts nothing here", "CUDA out of memory"]
    assert [one.within_spread for one in found] == [False, False, True, False, False]


def test_the_summary_counts_all_of_them() -> None:
    """3 of 4 predicted: errors of 50, 12 and 2 % have median 12, mean 64/3 and bias 40/3."""
    figures = verdict_summary(compare_records([record(case(name)) for name in (*FACTORS, "impossible")], predict))
    assert (figures["cases"], figures["predicted"], figures["coverage"]) == (4, 3, 0.75)
    assert figures["step_median_abs_error_pct"] == pytest.approx(12)
    assert figures["step_mean_abs_error_pct"] == pytest.approx(64 / 3)
    assert figures["step_mean_error_pct"] == pytest.approx(40 / 3)
    assert figures["step_worst_error_pct"] == pytest.approx(50)
    assert (figures["within_10_pct"], figures["within_15_pct"], figures["within_spread"]) == (1, 2, 1)
    assert figures["words"] == {"good": 1, "fair": 1, "poor": 1, "not predicted": 1, "not measured": 0}


def test_memory_is_held_against_what_counted_it() -> None:
    """An allocator does not see what the framework keeps outside of it; the operating system sees all."""
    heaviest = max(predict(case("close")).memory, key=lambda stage: stage.peak_bytes)
    inside = heaviest.peak_bytes - heaviest.components["framework"]
    on_device = verdict(case("close"), memory={"allocated_bytes": inside, "reserved_bytes": None, "rss_bytes": 1})
    on_host = verdict(case("close"), device="cpu", memory={"allocated_bytes": None, "rss_bytes": heaviest.peak_bytes / 2})
    assert on_device.memory is not None
    assert on_device.memory.error_pct == pytest.approx(0)
    assert on_host.memory is not None
    assert on_host.memory.error_pct == pytest.approx(100)
    assert verdict(case("close")).memory is None


@pytest.mark.parametrize(
    "energy", [None, {}, {"source": "unavailable", "reason": "no counter"}, {"source": "unavailable", "joules_per_step": 9.0}]
)
def test_energy_that_nobody_measured_is_never_compared(energy: Mapping[str, Any] | None) -> None:
    """A missing counter is neither zero nor a measurement."""
    assert verdict(case("close"), energy=energy).energy is None


def test_energy_is_that_at_the_accelerators_meters() -> None:
    """Mean watts of an accelerator times their number times the step."""
    one = predict(case("close"))
    joules = one.power["accelerator_mean_w"] * one.step_s
    found = verdict(case("close"), energy={"source": "nvml energy counter", "joules_per_step": joules / 2}).energy
    assert found is not None
    assert found.error_pct == pytest.approx(100)


def test_losses_are_those_of_the_same_training_on_the_fewest_ranks() -> None:
    """Equal to rounding, apart by what is said, and alone where nothing else trains the same."""
    records = [
        record(case("one"), losses=[2.0, 1.9]), record(case("dp", plan=Plan(dp=2)), losses=[2.0, 1.9001]),
        record(case("tp", plan=Plan(tp=2)), losses=[2.0, 2.0]), record(case("other", kind="mlp")),
        record(case("nan", plan=Plan(dp=4)), losses=[2.0, float("nan")]),
    ]  # fmt: skip
    words = {one.name: one.losses for one in compare_records(records, predict)}
    assert words == {"one": "equal", "dp": "equal", "tp": "differ by 5 %", "other": "no other", "nan": "not finite"}
    rounded = [replace(one, data={**one.data, "case": case_data(case(one.key, precision="bf16"))}) for one in records[:2]]
    assert {one.losses for one in compare_records(rounded, predict)} == {"equal"}


def test_collectives_stand_beside_the_error() -> None:
    """What rank 0 started is held against what it is predicted to."""
    dp = case("close", plan=Plan(dp=2))
    own = [{"op": one.op, "bytes": one.size_bytes, "group": [0, 1]} for one in predict(dp).timeline("op").transfers]
    agreed = verdict(dp, collectives=own).collectives
    assert agreed is not None
    assert agreed.word == "agree"
    assert agreed.predicted == agreed.measured
    found = verdict(dp, collectives=[]).collectives
    assert found is not None
    assert found.word == "differ"
    assert verdict(dp).collectives is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step_s", 0.2), ("step_s", {"median": 0.2}), ("step_s", {"median": "0.2", "q1": 0, "q3": 0, "repeats": 1}), ("losses", "2.0"),
        ("collectives", [{"op": "all_reduce"}]), ("collectives", 3), ("memory", [1]), ("energy", "9 J"), ("world_size", "two"),
        ("case", "gpt"),
    ],
)  # fmt: skip
def test_a_record_that_is_not_as_they_are_written_is_told_by_its_field(name: str, value: Any) -> None:
    """A file edited by hand costs its faulty cases, and no traceback."""
    found = compare_records([record(case("close"), **{name: value}), record(case("far"))], predict)
    assert [one.word for one in found] == ["poor", "not measured"]
    assert f"its {name} is" in found[1].reason


def test_a_step_without_a_time_was_not_measured() -> None:
    """Nothing, zero and not-a-number are no step time."""
    for value in (None, *({"median": median, "q1": 0.0, "q3": 0.0, "repeats": 1} for median in (0.0, float("nan")))):
        assert verdict(case("close"), step_s=value).word == "not measured"


def test_measurements_without_a_step_are_refused() -> None:
    """Microbenchmarks alone are nothing to compare."""
    with pytest.raises(UsageError, match="no training step"):
        compare_records([Record(kind="micro", key="m", data={})], predict)


def test_table_and_report() -> None:
    """Each shows every case; the report shows the picture and the machine, and is data that JSON holds."""
    stamp = Record(kind="stamp", key="stamp", data={"device_name": "NVIDIA H100", "torch": "2.11"})
    records = [stamp, *(record(case(name), collectives=[], energy={"source": "nvml", "joules_per_step": 9.0}) for name in FACTORS)]
    found = compare_records([*records, record(case("impossible"))], predict)
    table = format_verdicts(found)
    assert "3 of 4 measured steps predicted: 1 good, 1 fair, 1 poor, 1 not predicted" in table
    assert [line.split()[0] for line in table.split("\n\n")[1].splitlines()] == ["case", "far", "short", "close"]
    assert "impossible: not predicted: cp=2 cuts nothing here" in table
    report = format_report(found, machine_of(records), "compare.png")
    assert all(name in report for name in (*FACTORS, "impossible", "NVIDIA H100", "![predicted against measured](compare.png)"))
    columns = {line.count("|") for line in report.splitlines() if line.startswith("|")}
    assert len(columns) == 1
    data = report_data(found, machine_of(records))
    assert [one["name"] for one in data["cases"]] == ["far", "short", "close", "impossible"]


def test_a_case_by_its_name(tmp_path: Path) -> None:
    """FILE:NAME, whatever colons either has; mistakes name what there is."""
    path = tmp_path / "a:b.jsonl"
    append_record(path, record(case("gpt:layers=2/dp=2", plan=Plan(dp=2))))
    assert case_named(f"{path}:gpt:layers=2/dp=2") == case("gpt:layers=2/dp=2", plan=Plan(dp=2))
    with pytest.raises(UsageError, match="it has gpt:layers=2/dp=2"):
        case_named(f"{path}:gpt:layers=2")
    with pytest.raises(UsageError, match=r"RECORDS\.jsonl:NAME"):
        case_named("records")
