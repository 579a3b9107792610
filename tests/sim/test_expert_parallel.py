"""Expert parallelism: bytes on the wire, memory of experts and their reduction in closed form, and directions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foretrain.errors import PlanError
from foretrain.hardware.load import load_cluster
from foretrain.models.model import Model
from foretrain.models.network import build
from foretrain.models.parts import Experts, Mlp
from foretrain.models.transformer import network_of, transformer_from_dimensions
from foretrain.sim.lower import lower
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.segment import EXPERT
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.software.profile import Software

SEQ, HIDDEN, LAYERS, COUNT, TOP, WIDTH, BYTES = 1024, 512, 2, 16, 2, 1024, 2.0
CLUSTER = load_cluster("dgx-h100:4")
SOFTWARE = load_software("megatron-lm")
EXPERT_PARAMETERS = LAYERS * COUNT * 3 * HIDDEN * WIDTH


def mixture(*, shared: int | None = None) -> Model:
    dims = {"layers": LAYERS, "hidden": HIDDEN, "heads": 8, "vocab": 8192, "seq_len": SEQ}
    network = network_of(transformer_from_dimensions("llama", name="mixture", **dims))
    wide = Mlp(width=WIDTH, activation="silu", gated=True)
    experts = Experts(count=COUNT, per_token=TOP, mlp=wide, shared=None if shared is None else replace(wide, width=shared))
    return build(replace(network, layers=tuple((replace(layer, mlp=experts), count) for layer, count in network.layers)))


MODEL = mixture()


def predict(batch: int = 32, *, model: Model = MODEL, software: Software = SOFTWARE, **plan: object) -> Prediction:
    return simulate(model, CLUSTER, Plan(**plan), Recipe(global_batch=batch), software=software)  # type: ignore[arg-type]


def wire_bytes(**plan: object) -> float:
    """Return what the exchanges of one micro-batch put on the wire of one rank."""
    job = lower(place(MODEL, CLUSTER, Plan(**plan), Recipe(global_batch=32)), SOFTWARE).job  # type: ignore[arg-type]
    legs = (leg for segment in job.segments if segment.name in ("forward", "backward") for leg in segment.ops)
    per_byte = CLUSTER.accelerator.power.link_j_per_byte
    return sum(leg.joules["links"] / per_byte for leg in legs if leg.kind == EXPERT and leg.transfer is not None)


@pytest.mark.parametrize("ep", [2, 4, 8, 16])
def test_tokens_travel_there_and_back_twice(ep: int) -> None:
    """Dispatch and combine, forward and backward: top-k · tokens · hidden each, (ep-1)/ep of which leaves the rank."""
    assert wire_bytes(dp=16, ep=ep) == pytest.approx(LAYERS * 4 * TOP * SEQ * HIDDEN * BYTES * (ep - 1) / ep)


def test_capacity_imbalance_tensor_and_context_ranks_change_the_bytes() -> None:
    """A capacity is sent whole, the busiest rank gets more, tensor ranks send a share each, context ranks have fewer tokens."""
    plain = wire_bytes(dp=16, ep=8)
    assert wire_bytes(dp=16, ep=8, capacity_factor=1.25) == pytest.approx(1.25 * plain)
    assert wire_bytes(dp=16, ep=8, expert_imbalance=1.5) == pytest.approx(1.5 * plain)
    assert wire_bytes(dp=16, tp=2, ep=8) == pytest.approx(plain / 2)
    assert wire_bytes(dp=8, cp=2, ep=8) == pytest.approx(plain / 2)


@pytest.mark.parametrize("zero", [0, 1, 3])
@pytest.mark.parametrize("ep", [1, 2, 8])
def test_experts_are_divided_and_the_rest_is_not(zero: int, ep: int) -> None:
    """Parameters of a rank: dense ones whole, experts over ep; sharded, every one over all ranks that hold the same, so over dp."""
    found = predict(dp=16, ep=ep, zero=zero).memory[0].components
    dense = MODEL.parameters - EXPERT_PARAMETERS
    held = MODEL.parameters / 16 if zero == 3 else dense + EXPERT_PARAMETERS / ep
    updated = dense + EXPERT_PARAMETERS / ep if zero == 0 else MODEL.parameters / 16
    one = predict(dp=16, zero=0).memory[0].components
    assert found["parameters"] / one["parameters"] == pytest.approx(held / MODEL.parameters)
    assert found["gradients"] / one["gradients"] == pytest.approx(held / MODEL.parameters)
    assert found["optimizer"] / one["optimizer"] == pytest.approx(updated / MODEL.parameters)


def test_ranks_run_the_flop_of_the_model_together() -> None:
    """Spread or not, with the busiest rank waiting for or not; only a capacity runs padding."""
    whole = predict(dp=16).hardware_flop
    assert predict(dp=16, ep=8).hardware_flop == pytest.approx(whole)
    assert predict(dp=16, ep=8, expert_imbalance=1.5).hardware_flop == pytest.approx(whole)
    assert predict(dp=16, ep=8, capacity_factor=2.0).hardware_flop > 1.2 * whole
    assert predict(dp=16, ep=8, capacity_factor=2.0).model_flop == predict(dp=16).model_flop


def test_the_busiest_rank_sets_the_pace() -> None:
    """More imbalance takes longer, and the others' waiting is time of expert parallelism."""
    steps = [predict(dp=16, ep=8, expert_imbalance=factor) for factor in (1.0, 1.2, 2.0)]
    assert [one.step_s for one in steps] == sorted(one.step_s for one in steps)
    waits = [one.breakdown["expert_parallel"] for one in steps]
    assert waits[0] < waits[1] < waits[2]
    for one in steps:
        assert sum(one.breakdown.values()) == pytest.approx(one.step_s, rel=1e-9)


def test_experts_over_nodes_are_dearer_than_in_one() -> None:
    """Eight ranks of one node swap through NVLink; eight on four nodes through NICs."""
    near, far = (predict(dp=8, tp=1, pp=4, vpp=1, ep=8, order=order, model=_deep()) for order in ("tp-dp-pp", "pp-tp-dp"))
    assert far.breakdown["expert_parallel"] > 1.5 * near.breakdown["expert_parallel"]


def _deep() -> Model:
    return replace(MODEL, layers=((MODEL.layers[0][0], 4),))


def test_shared_experts_hide_the_exchange_where_the_software_says_so() -> None:
    """Exposed time falls and hidden time appears; without shared experts there is nothing to run beside."""
    beside = replace(SOFTWARE, overlap=replace(SOFTWARE.overlap, expert_exchange=True))
    model = mixture(shared=4096)
    apart, together = predict(dp=16, ep=8, model=model), predict(dp=16, ep=8, model=model, software=beside)
    assert together.step_s < apart.step_s
    assert together.breakdown["expert_parallel"] < apart.breakdown["expert_parallel"]
    assert together.hidden["expert_parallel"] > 0.0
    assert predict(dp=16, ep=8, software=beside).step_s == predict(dp=16, ep=8).step_s


REFUSED: tuple[tuple[dict[str, object], str], ...] = (
    ({"dp": 16, "ep": 3}, "use one of 1, 2, 4, 8"),
    ({"dp": 32, "ep": 32}, "16 experts"),
    ({"dp": 16, "ep": 4, "zero": 1, "shard": 2}, "multiple of ep"),
    ({"dp": 16, "expert_imbalance": 1.2}, "ep=1"),
    ({"dp": 16, "capacity_factor": 1.2}, "ep=1"),
    ({"dp": 16, "ep": 4, "expert_imbalance": 0.5}, "from 1"),
    ({"dp": 16, "ep": 4, "capacity_factor": 0.0}, "above 0"),
    ({"dp": 16, "ep": 4, "expert_imbalance": float("nan")}, "no load"),
    ({"dp": 16, "ep": 4, "expert_imbalance": 1.1, "capacity_factor": 1.1}, "one of them"),
)


@pytest.mark.parametrize(("plan", "remedy"), REFUSED)
def test_what_cannot_be_spread_is_refused(plan: dict[str, object], remedy: str) -> None:
    """With what could be."""
    with pytest.raises(PlanError, match=remedy):
        predict(**plan)  # type: ignore[arg-type]


def test_a_model_without_experts_is_refused() -> None:
    """There is nothing to spread."""
    dims = {"layers": 2, "hidden": 512, "heads": 8, "vocab": 8192, "seq_len": 1024}
    from foretrain.models.transformer import build as build_transformer  # noqa: PLC0415  # beside the other `build`

    with pytest.raises(PlanError, match="use ep=1"):
        predict(model=build_transformer(transformer_from_dimensions("llama", name="dense", **dims)), dp=16, ep=8)


@pytest.mark.parametrize("ep", [2, 8, 16])
def test_gradients_of_experts_are_sharded_over_the_ranks_that_hold_them(ep: int) -> None:
    """ZeRO-2 over 16 replicas: parameters whole, of gradients and optimizer a 16th of all, experts or not."""
    found = predict(dp=16, ep=ep, zero=2).memory[0].components
    one = predict(dp=16, zero=0).memory[0].components
    assert found["parameters"] == predict(dp=16, ep=ep).memory[0].components["parameters"]
    assert found["gradients"] == pytest.approx(one["gradients"] / 16)
    assert found["optimizer"] == pytest.approx(one["optimizer"] / 16)


def test_a_bucket_leaves_out_experts_that_nobody_else_holds() -> None:
    """16 replicas, each with an expert of its own: of a bucket as large as the model, the dense gradients alone wait in 4 bytes."""
    dense = MODEL.parameters - EXPERT_PARAMETERS
    software = replace(SOFTWARE, overlap=replace(SOFTWARE.overlap, gradient_bucket_bytes=1e12))
    alone, shared = (predict(dp=16, ep=ep, zero=2, software=software).memory[0].components["buffers"] for ep in (16, 8))
    assert alone == pytest.approx(4 * dense)
    assert shared == pytest.approx(4 * (dense + EXPERT_PARAMETERS / 8))


def test_sharded_gradients_of_experts_are_reduced_in_every_micro_batch() -> None:
    """ZeRO-2: twice the reductions with two of them, gathers of parameters as often; ZeRO-1 reduces once."""
    hidden = replace(SOFTWARE, overlap=replace(SOFTWARE.overlap, gradient_reduce=False, parameter_gather=False))

    def exchanged(zero: int, microbatches: int) -> float:
        return predict(16 * microbatches, dp=16, ep=4, zero=zero, software=hidden).breakdown["data_parallel"]

    assert exchanged(1, 2) == pytest.approx(exchanged(1, 1))
    assert exchanged(2, 3) - exchanged(2, 2) == pytest.approx(exchanged(2, 2) - exchanged(2, 1))
    assert exchanged(2, 2) > exchanged(2, 1)


@pytest.mark.parametrize("ep", [1, 4, 16])
@pytest.mark.parametrize("zero", [0, 1, 2])
def test_hosts_update_what_their_ranks_would(zero: int, ep: int) -> None:
    """Nothing of the optimizer stays on the device; each rank copies out what it updates, 2 bytes a parameter."""
    found = predict(dp=16, ep=ep, zero=zero, offload="optimizer")
    assert found.memory[0].components["optimizer"] == 0.0
    dense = MODEL.parameters - EXPERT_PARAMETERS
    updated = dense + EXPERT_PARAMETERS / ep if zero == 0 else MODEL.parameters / 16
    job = lower(place(MODEL, CLUSTER, Plan(dp=16, ep=ep, zero=zero, offload="optimizer"), Recipe(global_batch=16)), SOFTWARE).job
    copied = sum(one.cost.wire_bytes for one in job.collectives if one.name.endswith("to host"))
    assert copied == pytest.approx(2 * updated)


def test_activations_of_a_mixture_can_lie_in_the_host_s_memory() -> None:
    """As those of any model."""
    kept, away = (predict(dp=16, ep=8, offload=parts).memory[0].components["activations"] for parts in (None, "activations"))
    assert away < kept


@pytest.mark.parametrize("plan", [{"gradient_compression": "bf16"}, {"replication": "diloco", "local_steps": 8}])
def test_what_takes_all_replicas_as_alike_is_refused(plan: dict[str, object]) -> None:
    """Experts are not."""
    with pytest.raises(PlanError, match=r"takes no experts that they do not share; use ep=1"):
        predict(dp=16, ep=8, **plan)
