"""A case survives being written and read, and says what is wrong with itself."""

import json

import pytest

from foretrain.errors import ForetrainError
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.validate.case import Case, Net, case_data, case_of, net_of, plan_of

PLANS = (
    "dp=2",
    "dp=2,zero=3",
    "tp=2,sequence_parallel=true",
    "pp=2,schedule=gpipe,micro_batch=4",
    "pp=2,layers_per_stage=3+1,unfold=dp+tp",
)


@pytest.mark.parametrize("text", PLANS)
def test_a_case_survives_json(text):
    case = Case(name="one", net=net_of("gpt:layers=3"), plan=plan_of(text), recipe=Recipe(global_batch=16, precision="fp32", clip="global"))
    again = case_of(json.loads(json.dumps(case_data(case))))
    assert case_data(again) == case_data(case)
    assert again.plan.schedule.name == case.plan.schedule.name
    assert again.plan.layers_per_stage == case.plan.layers_per_stage


def test_sizes_that_are_left_out_get_defaults():
    assert net_of("gpt:layers=3").sizes == {"layers": 3, "hidden": 256, "heads": 4, "seq": 128, "vocab": 1024}
    assert net_of("my.package:build") == Net(kind="module", factory="my.package:build")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: net_of("gpd"), "gpt"),
        (lambda: net_of("gpt:layer=3"), "layers"),
        (lambda: net_of("gpt:layers=x"), "whole number"),
        (lambda: net_of("gpt:layers"), "a=1,b=2"),
        (lambda: plan_of("pd=2"), "dp"),
        (lambda: plan_of("dp=0"), "from 1"),
        (lambda: plan_of("pp=2,schedule=1g1b"), "1f1b"),
        (lambda: case_of({"name": "one"}), "net"),
        (lambda: Case(name="one", net=Net(kind="mlp"), plan=Plan(), recipe=Recipe(global_batch=1), backend="tensorflw"), "tensorflow"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(ForetrainError, match=words):
        make()
