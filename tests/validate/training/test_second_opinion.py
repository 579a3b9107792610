"""What the second opinions refuse, and which software predicts them."""

import importlib.util

import pytest

from foretrain.errors import ForetrainError, UsageError
from foretrain.sim.recipe import Recipe
from foretrain.software.load import load_software
from foretrain.validate.case import Case, net_of, plan_of
from foretrain.validate.training.second_opinion import SOFTWARE, run_backend_case, software_for

MLP = "mlp:width=16,depth=2,classes=8"


def case_of(net=MLP, plan="dp=2,micro_batch=2", backend="jax", compiled=False, **recipe):  # noqa: FBT002  # as Case has it
    recipe = Recipe(**{"global_batch": 8, "precision": "fp32", **recipe})
    return Case(name="one", net=net_of(net), plan=plan_of(plan), recipe=recipe, backend=backend, compiled=compiled)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"plan": "pp=2"}, "pp=2 is not run by jax.*torch"),
        ({"plan": "dp=2,zero=1"}, "zero=1 is not run by jax.*zero=0 or zero=3"),
        ({"plan": "dp=4,zero=3,shard=2"}, "shard=2"),
        ({"plan": "tp=2,sequence_parallel=true"}, "sequence_parallel"),
        ({"plan": "recompute=full"}, "recompute=full"),
        ({"plan": "tp=3", "global_batch": 1}, "tp=3 does not divide mlp:width=16"),
        ({"plan": "tp=2", "net": "resnet"}, "tp=2 cannot cut resnet"),
        ({"plan": "dp=3"}, "multiple of 3"),
        ({"net": "resnet:depth=20"}, "18, 34, 50"),
        ({"net": "resnet:image=16"}, "at least 32"),
        ({"net": "gpt:heads=5"}, "multiple"),
        ({"net": "my.package:build"}, "torch module"),
        ({"precision": "fp16"}, "fp16 is not run by jax on cpu"),
        ({"precision": "tf32"}, "tf32"),
        ({"optimizer": "lion"}, "lion"),
        ({"grad_dtype": "bf16", "precision": "bf16"}, "grad_dtype"),
        ({"seq_len": 64, "net": "gpt"}, "gpt:seq=64"),
        ({"compiled": True}, "jax compiles every step"),
        ({"backend": "tensorflow", "compiled": True}, "XLA"),
        ({"backend": "tensorflow", "plan": "tp=2"}, "MirroredStrategy"),
        ({"backend": "tensorflow", "plan": "dp=2,zero=3"}, "zero=3"),
        ({"backend": "torch"}, "no second opinion"),
    ],
)
def test_what_a_trainer_does_not_run_is_refused_with_a_remedy(given, words, tmp_path):
    with pytest.raises(ForetrainError, match=words):
        run_backend_case(case_of(**given), device="cpu", seconds=1.0, path=tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_is_a_time(seconds, tmp_path):
    with pytest.raises(UsageError, match="seconds"):
        run_backend_case(case_of(), device="cpu", seconds=seconds, path=tmp_path / "out.jsonl")


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_a_framework_that_is_absent_is_named_with_its_extra(backend, tmp_path):
    if importlib.util.find_spec(backend) is not None:
        pytest.skip(f"{backend} is installed")
    with pytest.raises(UsageError, match=rf"foretrain\[{backend}\]"):
        run_backend_case(case_of(backend=backend), device="cpu", seconds=1.0, path=tmp_path / "out.jsonl")


def test_software_follows_the_framework():
    """XLA's own profile on GPUs, whose launches come from the host; TensorFlow 2's graphs are alike on both."""
    assert software_for("jax", "cpu") == "xla"
    assert software_for("jax", "cuda") == "xla-gpu"
    assert software_for("tensorflow", "cpu") == software_for("tensorflow", "cuda") == "tensorflow-2"
    for name in SOFTWARE.values():
        assert load_software(name).name
    with pytest.raises(UsageError, match="--software"):
        software_for("torch", "cuda")
