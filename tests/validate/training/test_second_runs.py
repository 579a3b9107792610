"""Small cases on the other frameworks, where they are installed: however the work is shared, it is the same work."""

import importlib.util
import math

import pytest

from foretrain.sim.recipe import Recipe
from foretrain.validate.case import Case, net_of, plan_of
from foretrain.validate.records import read_records
from foretrain.validate.training.second_opinion import run_backend_case

GPT = "gpt:layers=1,hidden=16,heads=2,seq=8,vocab=32"
MLP = "mlp:width=16,depth=2,classes=8"
RESNET = "resnet:image=32,classes=4"
SECONDS = 0.02


def needs(backend):
    return pytest.mark.skipif(importlib.util.find_spec(backend) is None, reason=f"{backend} is not installed")


def run(folder, backend, plan, *, net=GPT, **recipe):
    recipe = Recipe(**{"global_batch": 8, "precision": "fp32", **recipe})
    case = Case(name=plan, net=net_of(net), plan=plan_of(plan), recipe=recipe, backend=backend)
    record = run_backend_case(case, device="cpu", seconds=SECONDS, path=folder / "out.jsonl")
    assert record in read_records(folder / "out.jsonl")
    return record


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one device of JAX makes of the GPT: the losses that every other run must have."""
    return run(tmp_path_factory.mktemp("alone"), "jax", "micro_batch=8", clip="global")


def carried(record, op):
    return sum(one["bytes"] for one in record.data["collectives"] if one["op"] == op)


@needs("jax")
@pytest.mark.parametrize(
    "plan",
    ["micro_batch=2", "dp=2,micro_batch=4", "dp=2,micro_batch=2,gradient_sync=micro-batch", "tp=2,micro_batch=8",
     "dp=2,zero=3,micro_batch=2", "dp=2,tp=2,zero=3,micro_batch=4"],
)  # fmt: skip
def test_losses_are_those_of_a_single_device(plan, alone, tmp_path):
    assert run(tmp_path, "jax", plan, clip="global").data["losses"] == pytest.approx(alone.data["losses"], rel=2e-5)


@needs("jax")
def test_a_record_says_what_was_measured(alone):
    data = alone.data
    assert data["losses"][0] == pytest.approx(math.log(32), rel=0.1)  # of a guess among 32 words
    assert data["losses"] == sorted(data["losses"], reverse=True)
    assert 0 < data["step_s"]["q1"] <= data["step_s"]["median"] <= data["step_s"]["q3"] < data["compile_s"]
    assert (data["world_size"], data["threads"], data["software"], data["collectives"]) == (1, 1, "xla", [])
    assert data["memory"]["rss_bytes"] > 0
    assert data["energy"]["source"] == "unavailable"


@needs("jax")
def test_replicas_reduce_every_gradient_once_a_step(tmp_path):
    """In fp32, with the loss; in however many micro-batches."""
    record = run(tmp_path, "jax", "dp=2,micro_batch=1", net=MLP)
    assert carried(record, "all_reduce") == 4 * (record.data["parameters"] + 1)


@needs("jax")
def test_full_sharding_gathers_and_scatters_every_weight_every_micro_batch(tmp_path):
    """Gathered once or, where the compiler keeps backward's gather, twice."""
    record = run(tmp_path, "jax", "dp=2,zero=3,micro_batch=2", net=MLP)
    assert carried(record, "reduce_scatter") == 2 * 4 * record.data["parameters"]
    assert carried(record, "all_gather") in (2 * 4 * record.data["parameters"], 4 * 4 * record.data["parameters"])


@needs("jax")
def test_tensor_parallel_ranks_reduce_activations_as_megatron_does(tmp_path):
    """Two all-reduces of rows × width a block forward and backward; of the ends, one for the table and one before the output layer."""
    record = run(tmp_path, "jax", "tp=2,micro_batch=8")
    rows = 8 * 8
    blocks, ends, loss = 4 * rows * 16, 2 * rows * 16, 3 * rows  # the loss: maximum, sum and the logit of the class, a number a row
    assert carried(record, "all_reduce") == 4 * (blocks + ends + loss)


@needs("tensorflow")
@pytest.mark.parametrize("plan", ["micro_batch=2", "dp=2,micro_batch=4", "dp=2,micro_batch=2,gradient_sync=micro-batch"])
def test_tensorflow_loses_what_one_of_its_devices_does(plan, tmp_path):
    expected, found = (
        run(tmp_path, "tensorflow", one, net=MLP, optimizer="momentum", clip="global").data["losses"] for one in ("micro_batch=8", plan)
    )
    assert found == pytest.approx(expected, rel=2e-5)


@needs("tensorflow")
def test_tensorflow_replicas_reduce_every_gradient_once_a_step(tmp_path):
    record = run(tmp_path, "tensorflow", "dp=2,micro_batch=1", net=MLP)
    assert carried(record, "all_reduce") == 4 * record.data["parameters"]
    assert record.data["software"] == "tensorflow-2"


@needs("jax")
@needs("tensorflow")
@pytest.mark.parametrize(("net", "precision", "tolerance"), [(GPT, "fp32", 1e-4), (GPT, "bf16", 2e-2), (RESNET, "fp32", 2e-3)])
def test_both_frameworks_lose_alike(net, precision, tolerance, tmp_path):
    """Same weights, samples and rules: two implementations that share the networks alone."""
    first, second = (
        run(tmp_path, one, "micro_batch=8", net=net, precision=precision, optimizer="sgd").data["losses"] for one in ("jax", "tensorflow")
    )
    assert first == pytest.approx(second, abs=tolerance)
