"""Split backward passes, bent pipelines, uneven stages and deferred gradients, from a model to a step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import PlanError
from foretrain.hardware.load import load_cluster
from foretrain.models.load import load_model
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model
from foretrain.models.ops import Layout
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.base import BACKWARD, FORWARD, INPUT, WEIGHT
from foretrain.sim.schedules.registry import schedule_by_name
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from tests.sim import hand
from tests.sim.cases import gpt, quiet
from tests.sim.hand import GIGA, TERA
from tests.sim.orders import steps

quick = settings(deadline=None, derandomize=True, max_examples=25)
SLOT_S = 2 * 1000 * 1000**2 / TERA
"""One product of a layer: forward, gradient of the input or gradient of the weights."""
TENSOR_BYTES = 2 * 1000 * 1000
SPLIT = ("zb-h1", "zb-h2", "interleaved-zb", "zb-v", "dualpipe", "dualpipe-v")


def predict(name: str, *, pp: int, vpp: int = 1, batch: int, model: Model | None = None, dp: int = 1, **plan: object) -> Prediction:
    """Return the prediction of a hand model, by default of one layer in each chunk."""
    whole = Plan(pp=pp, vpp=vpp, dp=dp, schedule=schedule_by_name(name), **plan)  # type: ignore[arg-type]
    return simulate(model or hand.linear_model(layers=pp * vpp), hand.cluster(nodes=2), whole, Recipe(global_batch=batch * dp),
                    software=hand.software())  # fmt: skip


def passes_s(prediction: Prediction) -> float:
    """Return the step without its optimizer."""
    return prediction.step_s - prediction.breakdown["optimizer"]


@quick
@given(st.integers(1, 5), st.integers(0, 12))
def test_a_simulated_model_takes_the_slots_of_the_papers(stages: int, more: int) -> None:
    """F = B = W = one slot: H1 leaves (p - 1)(F + B - W); H2 and V only what their last stage starts late, (p - 1)F."""
    batch = 2 * stages + more
    assert passes_s(predict("zb-h1", pp=stages, batch=batch)) == pytest.approx((3 * batch + stages - 1) * SLOT_S, rel=1e-9)
    late = predict("zb-h2", pp=stages, batch=batch + stages), predict("zb-v", pp=stages, vpp=2, batch=batch)
    assert passes_s(late[1]) == pytest.approx((6 * batch + stages - 1) * SLOT_S, rel=1e-6)
    # The stages' optimizers run side by side but for the first, which ends early.
    assert late[0].step_s == pytest.approx((3 * (batch + stages) + stages - 1) * SLOT_S + optimizer_s(late[0]), rel=1e-9)


def optimizer_s(prediction: Prediction) -> float:
    """Return one stage's optimizer, of which the breakdown holds the mean."""
    return prediction.breakdown["optimizer"]


@quick
@given(st.integers(1, 3), st.integers(0, 6))
def test_a_simulated_model_meets_itself_in_the_middle(half: int, more: int) -> None:
    """DualPipe with F = B = W: (p/2 - 1)(F&B + B - 3W) of bubble, the gradients of both copies summed over two ranks at the end."""
    batch = 4 * half + 2 * more
    model = hand.linear_model(layers=2 * half)
    prediction = predict("dualpipe", pp=2 * half, batch=batch, model=model)
    between_nodes = 2 * half > 8
    assert not between_nodes
    reduce_s = 2 * 4e6 / (100 * GIGA)
    assert prediction.breakdown["data_parallel"] == pytest.approx(reduce_s, rel=1e-6)
    assert passes_s(prediction) == pytest.approx((3 * batch + 2 * (half - 1)) * SLOT_S + reduce_s, rel=1e-6)


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("stages", [2, 4])
def test_activations_are_what_the_order_holds(name: str, stages: int) -> None:
    """A layer keeps its input until the gradient of its weights, and the gradient of its output from that of its input on."""
    vpp = 2 if name in ("zb-v", "dualpipe-v", "interleaved-zb") else 1
    prediction = predict(name, pp=stages, vpp=vpp, batch=3 * stages + 4 - stages % 2)
    for memory in prediction.memory:
        batch = prediction.recipe.global_batch
        order = steps(schedule_by_name(name), stage=memory.stage, stages=stages, chunks=vpp, microbatches=batch)
        held = peak = 0
        for kind in (kind for step in order for kind, _, _ in step):
            held += {FORWARD: 1, INPUT: 1, WEIGHT: -2, BACKWARD: -1}[kind]
            peak = max(peak, held)
        assert memory.components["activations"] == pytest.approx(peak * TENSOR_BYTES)


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_split_passes_do_the_work_of_whole_ones(name: str, recompute: str) -> None:
    """The same kernels run, so that FLOPs, and without tensor parallelism their seconds, are those of 1F1B."""
    model, cluster, recipe = gpt(layers=8), load_cluster("dgx-a100-80gb:1"), Recipe(global_batch=16)
    vpp = 2 if name in ("zb-v", "dualpipe-v", "interleaved-zb") else 1
    software = quiet(load_software("megatron-lm"))
    plan = Plan(pp=4, vpp=vpp, schedule=schedule_by_name(name), recompute=recompute)
    whole = simulate(model, cluster, Plan(pp=4, recompute=recompute), recipe, software=software)
    split = simulate(model, cluster, plan, recipe, software=software)
    assert split.hardware_flop == pytest.approx(whole.hardware_flop)
    for part in ("math", "memory"):
        assert split.breakdown[part] == pytest.approx(whole.breakdown[part])


def test_the_ends_of_a_bent_pipeline_share_their_embedding() -> None:
    """Stage 0 of a V holds both ends: the tied embedding once, and nothing to reduce between stages."""
    model, cluster, recipe = gpt(layers=8), load_cluster("dgx-a100-80gb:1"), Recipe(global_batch=16)
    software = load_software("megatron-lm")
    bent = simulate(model, cluster, Plan(pp=4, vpp=2, schedule=schedule_by_name("zb-v")), recipe, software=software)
    round_ = simulate(model, cluster, Plan(pp=4, vpp=2, schedule=schedule_by_name("interleaved-zb")), recipe, software=software)
    held = [sum(stage.components["parameters"] for stage in prediction.memory) for prediction in (bent, round_)]
    assert held[1] - held[0] == pytest.approx(model.tied_parameters * software.state.parameter_bytes)
    assert bent.breakdown["data_parallel"] == 0.0 < round_.breakdown["data_parallel"]


def test_two_copies_hold_twice() -> None:
    """Every stage of DualPipe holds its part and its mirror image's."""
    both, one = predict("dualpipe", pp=4, batch=8), predict("1f1b", pp=4, batch=8)
    for part in ("parameters", "gradients", "optimizer"):
        assert [stage.components[part] for stage in both.memory] == [2 * stage.components[part] for stage in one.memory]


@pytest.mark.parametrize("zero", [0, 1, 3])
@pytest.mark.parametrize("name", SPLIT)
def test_every_exchange_serves_every_schedule(name: str, zero: int) -> None:
    """Replicated, sharded optimizer and fully sharded, everything hidden that can be: the step ends, and no joule is lost."""
    software = replace(load_software("megatron-lm"), overlap=hand.OVERLAP)
    vpp = 2 if name in ("zb-v", "dualpipe-v", "interleaved-zb") else 1
    plan = Plan(dp=4, pp=4, vpp=vpp, zero=zero, schedule=schedule_by_name(name))
    prediction = simulate(gpt(layers=8), load_cluster("dgx-a100-80gb:2"), plan, Recipe(global_batch=64), software=software)
    assert sum(prediction.breakdown.values()) == pytest.approx(prediction.step_s)
    apart = simulate(
        gpt(layers=8), load_cluster("dgx-a100-80gb:2"), replace(plan, unfold=frozenset({"dp"})), Recipe(global_batch=64), software=software
    )
    assert apart.step_s == pytest.approx(prediction.step_s, rel=1e-6)


@pytest.mark.parametrize("name", SPLIT)
def test_a_software_that_waits_for_its_sends_is_slower(name: str) -> None:
    """A sender that goes on hides most of its messages behind its next pass; a pair, whose two leave together, fewer."""
    vpp = 2 if name in ("zb-v", "dualpipe-v", "interleaved-zb") else 1
    plan, recipe = Plan(pp=4, vpp=vpp, schedule=schedule_by_name(name)), Recipe(global_batch=16)
    model = hand.linear_model(layers=8, boundary=True)
    waits, hides = (
        simulate(model, hand.cluster(), plan, recipe, software=hand.software(overlap=replace(hand.NO_OVERLAP, pipeline=hidden)))
        for hidden in (False, True)
    )
    assert hides.breakdown["pipeline_parallel"] < 0.6 * waits.breakdown["pipeline_parallel"]
    assert waits.step_s > hides.step_s


@quick
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 12))
def test_the_slowest_of_uneven_stages_sets_the_pace(counts: list[int], batch: int) -> None:
    """GPipe over stages of n layers: each direction takes the sum over stages and m - 1 times the largest."""
    model = hand.linear_model(layers=sum(counts))
    prediction = predict("gpipe", pp=len(counts), batch=batch, model=model, layers_per_stage=tuple(counts))
    slots = sum(counts) + (batch - 1) * max(counts)
    ends = prediction.step_s - 3 * slots * SLOT_S
    # The first stage ends last; its own optimizer follows.
    assert ends == pytest.approx(counts[0] * optimizer_layer_s(), rel=1e-6)
    assert [stage.components["parameters"] for stage in prediction.memory] == [count * 2e6 for count in counts]


def optimizer_layer_s() -> float:
    """Return the optimizer step of one layer: 30 bytes moved and 8 read and written per parameter, as in `test_closed_forms`."""
    return 1000**2 * ((4 + 2 * (4 + 8) + 2) + 4 + 4) / TERA


def test_layers_are_counted_in_the_order_of_the_model() -> None:
    """On a V the first and the last number are the first stage's."""
    model = hand.linear_model(layers=10)
    prediction = predict("zb-v", pp=2, vpp=2, batch=4, model=model, layers_per_stage=(1, 2, 3, 4))
    assert [stage.components["parameters"] for stage in prediction.memory] == [5 * 2e6, 5 * 2e6]
    placement = place(model, hand.cluster(), Plan(pp=2, vpp=2, layers_per_stage=(1, 2, 3, 4)), Recipe(global_batch=4))
    assert [len(part) for part in placement.chunk_layers] == [1, 2, 3, 4]


def with_head(layers: int) -> Model:
    """Return the hand model with an output layer of a layer's size."""
    head = Linear(name="head", tokens=1000, in_features=1000, out_features=1000, bias=False, cut="column")
    return replace(hand.linear_model(layers=layers), epilogue=(Block(name="head", steps=(head,), input_elements=0),))


@quick
@given(st.integers(1, 12))
def test_the_output_layers_gradient_waits_for_the_end(batch: int) -> None:
    """GPipe on two stages, a layer each and a head: the last stage gives its gradients on after 3 slots, not 4, and ends m later.

    Without: 1 + 2m + 4m slots, then 2 of the first stage; with: the later of 1 + 2m + 3m + m (last stage) and 1 + 5m + 2 (first).
    Memory: the head keeps its input and the gradient of its output of every micro-batch.
    """
    model = with_head(2)
    plain = predict("gpipe", pp=2, batch=batch, model=model)
    deferred = predict("gpipe", pp=2, batch=batch, model=model, defer_embedding_wgrad=True)
    one, two = optimizer_layer_s(), 2 * optimizer_layer_s()
    assert plain.step_s == pytest.approx(max((6 * batch + 3) * SLOT_S + one, (6 * batch + 1) * SLOT_S + two), rel=1e-9)
    assert deferred.step_s == pytest.approx(max((5 * batch + 3) * SLOT_S + one, (6 * batch + 1) * SLOT_S + two), rel=1e-9)
    assert deferred.hardware_flop == plain.hardware_flop
    assert deferred.memory[0].components == plain.memory[0].components
    # Last of the micro-batches: all 2m heads' tensors and, of the layer, what GPipe still holds.
    kept = deferred.memory[1].components["activations"]
    assert kept == pytest.approx(max(2 * batch + 1, 2 * batch) * TENSOR_BYTES)


def test_a_deferred_gradient_is_reduced_with_the_others() -> None:
    """Replicas reduce the head's gradients once they are there, hidden or not."""
    for overlap in (hand.NO_OVERLAP, hand.OVERLAP):
        plan = Plan(dp=2, pp=2, defer_embedding_wgrad=True)
        prediction = simulate(
            with_head(2), hand.cluster(), plan, Recipe(global_batch=8), software=hand.software(overlap=overlap), detail="op"
        )
        spent = prediction.breakdown["data_parallel"] + prediction.hidden["data_parallel"]
        assert spent == pytest.approx(1.5 * 4e6 / (100 * GIGA), rel=1e-6)


@pytest.mark.parametrize(
    ("plan", "match"),
    [
        (Plan(defer_embedding_wgrad=True), "pp=1"),
        (Plan(pp=2, zero=3, dp=2, defer_embedding_wgrad=True), "zero=3"),
        (Plan(pp=2, defer_embedding_wgrad=True, schedule=schedule_by_name("zb-h1")), "use schedule 1f1b"),
        (Plan(pp=2, layers_per_stage=(1, 2, 1)), "give a number each: 2,2"),
        (Plan(pp=2, layers_per_stage=(1, 2)), "nearest that fits: 2,2"),
        (Plan(pp=2, layers_per_stage=(0, 4)), "chunk 0 of 2 without work"),
    ],
)
def test_what_cannot_be_is_refused(plan: Plan, match: str) -> None:
    """The message names the reason, or the nearest layers that fit."""
    with pytest.raises(PlanError, match=match):
        simulate(with_head(4), hand.cluster(), plan, Recipe(global_batch=8), software=hand.software())


@pytest.mark.parametrize("layers", ["7,8", (1.5, 2), 4, (-1, 3)])
def test_layers_are_whole_numbers(layers: object) -> None:
    """A plan refuses what counts nothing."""
    with pytest.raises(PlanError, match="is no list of layers"):
        Plan(pp=2, layers_per_stage=layers)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gpt2", "llama3-8b", "mixtral-8x7b", "resnet-50", "gnmt", "dlrm", "t5-small", "vit-b-16"])
def test_every_gradient_of_weights_says_so(name: str) -> None:
    """By the names that ops of all kinds give their kernels, adapters included where a model takes them."""
    model = load_model(name)
    models = [model, model.with_lora(rank=4, targets=("all-linear",))] if name == "llama3-8b" else [model]
    kernels = [
        kernel for one in models for block, _ in one.blocks() for op in block.ops for kernel in op.backward(Layout(micro_batch=2))
    ]
    told = [kernel.name for kernel in kernels if kernel.name.endswith(("wgrad", "bias_grad"))]
    assert told
    assert told == [kernel.name for kernel in kernels if kernel.weight_grad and not kernel.name.endswith("update")]
