"""What torch cannot run is refused before anything starts, with the reason and the remedy; the rest is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foretrain.errors import ForetrainError
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.validate.case import Case, Net, net_of, plan_of
from foretrain.validate.training.refusals import check_case, processes, reason
from foretrain.validate.training.suites import suite_of


def case(net: str, plan: str, device_batch: int = 16, **recipe: object) -> Case:
    given = {"global_batch": device_batch, "precision": "fp32", **recipe}
    return Case(name="case", net=net_of(net), plan=plan_of(plan), recipe=Recipe(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("net", "plan", "recipe", "words"),
    [
        ("resnet", "tp=2", {}, "convolutions.*use dp"),
        ("gpt:heads=6,hidden=96", "tp=4", {}, "heads=6.*multiple"),
        ("gpt:seq=127", "tp=2,sequence_parallel=true", {}, "seq=127"),
        ("gpt", "sequence_parallel=true", {}, "raise tp"),
        ("gpt", "cp=2", {}, "cp=1"),
        ("gpt", "dp=2,ep=2", {}, "ep=1"),
        ("gpt", "offload=optimizer", {}, "leave it out"),
        ("gpt", "dp=2,replication=diloco,local_steps=5", {}, "all-reduce"),
        ("gpt", "dp=2,replication=first-device,micro_batch=8", {}, "needs GPUs"),
        ("gpt", "pp=3", {}, "layers_per_stage"),
        ("gpt", "pp=2,layers_per_stage=3+2", {}, "sum to the 4 blocks"),
        ("gpt", "pp=2,schedule=dualpipe", {}, "1f1b"),
        ("gpt", "pp=2,schedule=interleaved-1f1b", {}, "vpp=2"),
        ("gpt", "pp=2,micro_batch=16", {}, "2 micro-batches at least"),
        ("gpt", "dp=2,pp=2,schedule=zb-h1", {}, "unreduced"),
        ("gpt", "dp=2,pp=2,vpp=2,schedule=interleaved-1f1b", {}, "zero=2 or 3"),
        ("gpt", "dp=2,tp=2,zero=1", {}, "zero 0, 2 or 3"),
        ("gpt", "zero=3", {}, "raise dp"),
        ("gpt", "dp=2,gradient_compression=topk:0.1", {}, "powersgd"),
        ("gpt", "dp=2,gradient_compression=bf16", {}, "NCCL"),
        ("gpt", "recompute=selective", {}, "full:2"),
        ("gpt", "dp=3", {}, "does not divide the global batch 16"),
        ("gpt", "dp=1", {"precision": "tf32"}, "NVIDIA"),
        ("gpt", "dp=1", {"precision": "fp8"}, "bf16"),
        ("gpt", "tp=2", {"precision": "fp16"}, "gradient scaler"),
        ("gpt", "dp=1", {"optimizer": "lamb"}, "adamw"),
        ("gpt", "dp=2,tp=2", {"clip": "global"}, "zero=2 or 3"),
        ("gpt", "dp=1", {"seq_len": 64}, "seq=64"),
    ],
)
def test_a_case_that_torch_cannot_run_is_refused(net, plan, recipe, words):
    with pytest.raises(ForetrainError, match=words):
        check_case(case(net, plan, **recipe), "cpu")


@pytest.mark.parametrize("net", ["mlp", "gpt", "resnet"])
@pytest.mark.parametrize("plan", ["dp=1", "dp=2", "dp=2,zero=1", "dp=4,zero=3,shard=2", "pp=2", "dp=2,pp=2", "pp=2,vpp=2,schedule=zb-v"])
def test_layouts_that_torch_has_are_not_refused(net, plan):
    assert reason(case(net, plan), "cpu") == ""


def test_a_module_of_the_users_is_not_cut():
    own = Net(kind="module", factory="my.package:build", sample_shape=(3,))
    for plan in (Plan(tp=2), Plan(pp=2), Plan(recompute="full")):
        assert "my.package:build" in reason(replace(case("gpt", "dp=1"), net=own, plan=plan), "cpu")


def test_only_data_parallel_is_one_process_for_several_devices():
    assert processes(plan_of("dp=2,replication=first-device")) == 1
    assert processes(plan_of("dp=2,tp=2")) == 4


@pytest.mark.parametrize(("device", "ranks", "least"), [("cpu", 1, 3), ("cpu", 2, 12), ("cuda", 1, 14), ("cuda", 8, 20)])
def test_suites_hold_cases_that_run(device, ranks, least):
    cases = suite_of("quick", device, ranks)
    assert len(cases) >= least
    assert len({one.name for one in cases}) == len(cases)
    assert [reason(one, device) for one in cases] == [""] * len(cases)
    assert {processes(one.plan) for one in cases} == {1, ranks}


def test_an_unknown_suite_is_named():
    with pytest.raises(ForetrainError, match="quick"):
        suite_of("quik", "cpu", 2)
