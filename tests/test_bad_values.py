"""What a script gets wrong: values of the wrong type or kind are refused where they are given, not somewhere inside."""

from __future__ import annotations

import json
import os
import pickle
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import foretrain as ft
from foretrain.errors import ForetrainError, OutputError, PlanError, RecipeError, UsageError
from foretrain.sim.schedules.registry import SCHEDULES, schedule_by_name

MODEL, CLUSTER = ft.load_model("gpt2"), ft.load_cluster("dgx-a100-80gb:2")


def predicted(**plan: Any) -> ft.Prediction:
    """Return the prediction of a small job."""
    return ft.simulate(MODEL, CLUSTER, ft.Plan(**{"dp": 16, **plan}), ft.Recipe(global_batch=64))


@pytest.mark.parametrize(
    "wrong",
    [
        {"tp": "2"}, {"tp": 2.0}, {"tp": True}, {"tp": None}, {"dp": 0}, {"dp": 16.0}, {"micro_batch": 1.5}, {"shard": "4"}, {"shard": 2.5},
        {"zero": True}, {"zero": "3"}, {"schedule": "1f1b"}, {"schedule": None}, {"unfold": "dp"}, {"unfold": None}, {"unfold": {"pp"}},
        {"recompute": None}, {"recompute": True}, {"order": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_plan_refuses_values_of_the_wrong_kind(wrong: Mapping[str, Any]) -> None:
    """Text for numbers, fractions for counts, names for objects; the field and the value are said."""
    with pytest.raises(PlanError, match=next(iter(wrong))) as caught:
        ft.Plan(**wrong)
    assert repr(next(iter(wrong.values()))).strip("{}") in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"global_batch": 64.0}, {"global_batch": "64"}, {"global_batch": True}, {"global_batch": float("nan")}, {"seq_len": "512"},
        {"seq_len": 512.0}, {"seq_len": 0}, {"precision": None}, {"optimizer": None}, {"optimizer": "Adam"},
    ],
    ids=str,
)  # fmt: skip
def test_a_recipe_refuses_values_of_the_wrong_kind(wrong: Mapping[str, Any]) -> None:
    """The same of recipes."""
    with pytest.raises(RecipeError):
        ft.Recipe(**{"global_batch": 64, **wrong})


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    """A sweep over np.arange works, and its predictions are JSON."""
    plan = ft.Plan(dp=np.int64(8), tp=np.int32(2), zero=np.int64(1))  # type: ignore[arg-type]
    recipe = ft.Recipe(global_batch=np.int64(64), seq_len=np.int64(512))  # type: ignore[arg-type]
    data = json.loads(json.dumps(ft.simulate(MODEL, CLUSTER, plan, recipe).to_dict()))
    assert (data["plan"]["dp"], data["plan"]["zero"], data["recipe"]["seq_len"]) == (8, 1, 512)


@pytest.mark.parametrize("name", SCHEDULES)
def test_equal_plans_are_equal(name: str) -> None:
    """A schedule is what it does, so that plans compare, serve as keys and travel between processes."""
    plan = ft.Plan(dp=2, schedule=schedule_by_name(name))
    assert plan == ft.Plan(dp=2, schedule=schedule_by_name(name)) == pickle.loads(pickle.dumps(plan))
    assert len({plan, ft.Plan(dp=2, schedule=schedule_by_name(name))}) == 1
    assert plan != ft.Plan(dp=2, schedule=schedule_by_name(next(other for other in SCHEDULES if other != name)))


def test_a_prediction_travels_whole() -> None:
    """A process pool returns predictions that equal its caller's and still give their timeline."""
    prediction = predicted()
    there = pickle.loads(pickle.dumps(prediction))
    assert there == prediction == predicted()
    assert there.timeline().step_s == prediction.timeline().step_s


@pytest.mark.parametrize("what", ["model", "cluster", "software"])
def test_a_name_is_no_object(what: str) -> None:
    """`simulate("gpt2", …)` says how to load it."""
    given = {"model": MODEL, "cluster": CLUSTER, "software": None, what: "gpt2"}
    with pytest.raises(UsageError, match=rf"load_{what}\('gpt2'\)"):
        ft.simulate(
            given["model"], given["cluster"], ft.Plan(dp=16), ft.Recipe(global_batch=64), software=given["software"]  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("name", [5, None, b"gpt2", "", Path("none.yaml"), Path("/")])
def test_whatever_is_loaded_is_found_or_refused(name: Any) -> None:
    """No type of name gets past the library."""
    for load in (ft.load_model, ft.load_cluster, ft.load_software):
        with pytest.raises(ForetrainError):
            load(name)


@pytest.mark.parametrize("length", [0, -1, "5", 2.5, 10**12])
def test_an_impossible_length_is_refused(length: Any) -> None:
    """Of a model as of a recipe."""
    with pytest.raises(ForetrainError, match="whole number"):
        ft.load_model("gpt2", seq_len=length)


def test_an_unknown_detail_is_refused() -> None:
    """Where the job is played again as where it is predicted."""
    with pytest.raises(UsageError, match="use one of segment, op"):
        predicted().timeline("ops")
    with pytest.raises(UsageError, match="use one of segment, op"):
        ft.simulate(MODEL, CLUSTER, ft.Plan(dp=16), ft.Recipe(global_batch=64), detail="ops")


@pytest.mark.parametrize("place", ["/", "/nowhere/trace.json", "x" * 300, "a\0b", ""])
def test_an_unwritable_trace_is_refused(place: str) -> None:
    """Folders, missing folders, names that the system refuses."""
    with pytest.raises(OutputError, match="cannot be written"):
        predicted().to_trace(place)


def test_a_trace_goes_into_a_pipe_and_through_a_link(tmp_path: Path) -> None:
    """What is no file is written into, never replaced; a link goes on pointing where it did."""
    link, real, pipe = tmp_path / "link.json", tmp_path / "real.json", tmp_path / "pipe"
    link.symlink_to(real)
    predicted().to_trace(link)
    assert link.is_symlink()
    assert json.loads(real.read_text())["traceEvents"]
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.set_blocking(reader, True)
        small = ft.simulate(MODEL, ft.load_cluster("dgx-a100-80gb:1"), ft.Plan(dp=8), ft.Recipe(global_batch=8))
        small.to_trace(pipe)
        assert os.read(reader, 10).startswith(b"{")
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "pipe", "real.json"]
