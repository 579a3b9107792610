"""Context parallelism: FLOPs and bytes on the wire in closed form, the causal imbalance by hand, folded against unfolded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foretrain.errors import PlanError
from foretrain.hardware.load import load_cluster
from foretrain.models.attention import CoreAttention
from foretrain.models.load import load_model
from foretrain.sim.context import shares
from foretrain.sim.engine import Engine
from foretrain.sim.lower import lower
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.registry import SCHEDULES, schedule_by_name
from foretrain.sim.segment import CONTEXT, Leg
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from tests.sim.cases import gpt

SEQ, HIDDEN, LAYERS, HEADS, BYTES = 4096, 512, 2, 8, 2.0
MODEL = gpt(layers=LAYERS, hidden=HIDDEN, heads=HEADS, seq_len=SEQ)
CLUSTER = load_cluster("dgx-h100:2")
SOFTWARE = load_software("megatron-lm")
MODES = ("ring", "all-gather", "ulysses")


def core(*, tokens: int = 64, causal: bool = True, window: int | None = None) -> CoreAttention:
    return CoreAttention(
        name="attention", tokens=tokens, heads=4, kv_heads=4, head_dim=16, causal=causal, dropout=False, window=window
    )


def predict(batch: int = 8, *, seq_len: int = SEQ, **plan: object) -> Prediction:
    return simulate(MODEL, CLUSTER, Plan(**plan), Recipe(global_batch=batch, seq_len=seq_len), software=SOFTWARE)  # type: ignore[arg-type]


def legs(**plan: object) -> list[Leg]:
    """Return the legs of one forward and one backward pass."""
    placed = place(MODEL, CLUSTER, Plan(**plan), Recipe(global_batch=8))  # type: ignore[arg-type]
    segments = {id(segment): segment for segment in lower(placed, SOFTWARE).job.segments if segment.name in ("forward", "backward")}
    return [leg for segment in segments.values() for leg in segment.ops]


def wire_bytes(**plan: object) -> float:
    """Return what context-parallel transfers of one micro-batch put on the wire of one rank."""
    per_byte = CLUSTER.accelerator.power.link_j_per_byte
    return sum(leg.joules["links"] / per_byte for leg in legs(**plan) if leg.kind == CONTEXT and leg.transfer is not None)


@pytest.mark.parametrize("cp", [2, 4, 8])
def test_bytes_on_the_wire_are_the_closed_forms(cp: int) -> None:
    """K and V of a layer are 2·s·h: forward (cp-1)/cp of them, backward as much again and their gradients.

    The ring brings the gradients home in one step more; swapping heads moves four tensors of s·h/cp each way, (cp-1)/cp of each.
    """
    keys, share = 2 * SEQ * HIDDEN * BYTES, (cp - 1) / cp
    plan = {"dp": 1, "cp": cp}
    assert wire_bytes(**plan) == pytest.approx(LAYERS * keys * (3 * share + 1 / cp))
    assert wire_bytes(cp_mode="all-gather", **plan) == pytest.approx(LAYERS * keys * 3 * share)
    assert wire_bytes(cp_mode="ulysses", **plan) == pytest.approx(LAYERS * 2 * 2 * keys * share / cp)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("cp", "cut"), [(2, "balanced"), (8, "balanced"), (4, "contiguous")])
def test_ranks_run_the_flop_of_the_model_together(mode: str, cp: int, cut: str) -> None:
    """However the sequence is cut, the ranks' FLOPs sum to those of one rank that has it whole, and the breakdown to the step."""
    if mode == "ulysses" and cut == "contiguous":
        return
    whole, cut_up = predict(), predict(cp=cp, cp_mode=mode, cp_cut=cut)
    assert cut_up.hardware_flop == pytest.approx(whole.hardware_flop)
    assert cut_up.model_flop == whole.model_flop
    assert sum(cut_up.breakdown.values()) == pytest.approx(cut_up.step_s, rel=1e-9)
    assert cut_up.breakdown["context_parallel"] + cut_up.hidden.get("context_parallel", 0.0) > 0.0


def test_the_contiguous_cut_leaves_the_last_rank_most() -> None:
    """Of 64 rows cut in 4, by hand: 16²·(r + ½) pairs; the last has (2·cp-1)/cp = 7/4 of the mean, the balanced cut none more."""
    assert shares(core(), 4, contiguous=True) == [128.0, 384.0, 640.0, 896.0]
    assert shares(core(), 4, contiguous=False) == [512.0] * 4
    for cp in (2, 4, 8, 16):
        work = shares(core(), cp, contiguous=True)
        assert max(work) == 64**2 / 2 * (2 * cp - 1) / cp**2
        assert max(work) / (sum(work) / cp) == (2 * cp - 1) / cp
    assert shares(core(causal=False), 4, contiguous=True) == [1024.0] * 4
    # A window of 16 of 64: the first quarter is a triangle, the others are bands.
    assert shares(core(window=16), 4, contiguous=True) == [128.0, 256.0, 256.0, 256.0]


@pytest.mark.parametrize("mode", ["ring", "all-gather"])
def test_the_slowest_rank_of_a_contiguous_cut_sets_the_pace(mode: str) -> None:
    """Attention lasts longer, the rest of the ranks wait in a class of its own, and nothing more is run."""
    even, uneven = (predict(seq_len=32768, cp=8, cp_mode=mode, cp_cut=cut) for cut in ("balanced", "contiguous"))
    assert uneven.step_s > 1.1 * even.step_s
    assert uneven.breakdown["context_parallel"] > even.breakdown["context_parallel"]
    assert uneven.hardware_flop == pytest.approx(even.hardware_flop)


DEGREES = ({"cp": 4}, {"dp": 2, "tp": 2, "cp": 4}, {"cp": 4, "pp": 2, "zero": 1, "dp": 2}, {"cp": 8, "zero": 3, "dp": 2})


@pytest.mark.parametrize("cut", ["balanced", "contiguous"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("degrees", DEGREES)
def test_folded_equals_unfolded(mode: str, cut: str, degrees: dict[str, int]) -> None:
    """Ranks played one by one take as long as the one that stands for them, and run as much."""
    if mode == "ulysses" and cut == "contiguous":
        return
    folded = predict(cp_mode=mode, cp_cut=cut, **degrees)
    for unfold in ({"cp"}, {"cp", "tp"}):
        apart = predict(cp_mode=mode, cp_cut=cut, unfold=frozenset(unfold), **degrees)
        assert apart.step_s == pytest.approx(folded.step_s, rel=1e-9)
        assert apart.hardware_flop == pytest.approx(folded.hardware_flop, rel=1e-9)
        assert apart.energy_j == pytest.approx(folded.energy_j, rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("plan", [Plan(dp=2, cp=4, zero=1), Plan(cp=4, pp=2, tp=2), Plan(dp=2, cp=8, zero=3)])
def test_both_details_and_the_jump_agree(mode: str, plan: Plan) -> None:
    """Kernel by kernel, whole passes, and the steady state jumped take the same time."""
    plan, recipe = replace(plan, cp_mode=mode), Recipe(global_batch=64)
    whole, kernels = (simulate(MODEL, CLUSTER, plan, recipe, software=SOFTWARE, detail=detail) for detail in ("segment", "op"))
    played = Engine(lower(place(MODEL, CLUSTER, plan, recipe), SOFTWARE).job).play()
    assert whole.step_s == pytest.approx(kernels.step_s, rel=1e-2)
    assert whole.step_s == pytest.approx(played.step_s, rel=1e-9)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("mode", MODES)
def test_every_schedule_runs_the_same_flop(name: str, mode: str) -> None:
    """Backward passes that are split and pipelines that are bent or bidirectional lose and repeat no part of attention."""
    schedule = schedule_by_name(name)
    model, recipe = gpt(layers=8, seq_len=1024), Recipe(global_batch=16)
    whole = simulate(model, CLUSTER, Plan(dp=2), recipe, software=SOFTWARE)
    for chunks in (1, 2):
        try:
            plan = Plan(pp=2, vpp=chunks, cp=2, cp_mode=mode, schedule=schedule)
            found = simulate(model, CLUSTER, plan, recipe, software=SOFTWARE)
        except PlanError:
            continue  # a schedule of other chunks
        assert found.hardware_flop == pytest.approx(whole.hardware_flop)
        return
    raise AssertionError(f"{name} took neither one chunk nor two")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_more_context_ranks_never_hold_more_activations(mode: str, recompute: str) -> None:
    """Per rank, other ranks' keys and values included."""
    held = [
        predict(cp=cp, recompute=recompute, cp_mode=mode if cp > 1 else "ring").memory[0].components["activations"] for cp in (1, 2, 4, 8)
    ]
    assert held == sorted(held, reverse=True)
    assert held[-1] < held[0] / 4


def test_parameters_are_reduced_and_sharded_over_dp_and_cp() -> None:
    """Two context ranks of eight replicas hold what sixteen replicas hold."""
    for zero in (0, 1, 3):
        wide, long = predict(16, dp=16, zero=zero).memory[0].components, predict(dp=8, cp=2, zero=zero).memory[0].components
        for part in ("parameters", "gradients", "optimizer"):
            assert long[part] == wide[part]
    assert predict(cp=8).breakdown["data_parallel"] + predict(cp=8).hidden["data_parallel"] > 0.0


def test_a_longer_sequence_hides_more_of_the_ring() -> None:
    """Compute grows with the square of the sequence and sends with its length, so less of them is left exposed."""
    exposed = []
    for length in (4096, 16384, 65536):
        found = predict(seq_len=length, cp=8)
        exposed.append(found.breakdown["context_parallel"] / (found.breakdown["context_parallel"] + found.hidden["context_parallel"]))
    assert exposed == sorted(exposed, reverse=True)
    assert exposed[-1] < 0.2


def test_an_order_that_spreads_context_ranks_over_nodes_is_slower() -> None:
    """Dp before cp puts the two ranks of each sequence on two nodes."""
    near, far = (predict(16, dp=8, cp=2, order=order, cp_mode="all-gather") for order in ("tp-cp-dp-pp", "tp-dp-cp-pp"))
    assert far.breakdown["context_parallel"] > 2 * near.breakdown["context_parallel"]
    assert near.step_s == predict(16, dp=8, cp=2, cp_mode="all-gather").step_s


REFUSED: tuple[tuple[dict[str, object], str], ...] = (
    ({"cp": 2, "cp_mode": "rong"}, "ring"),
    ({"cp_mode": "ulysses"}, "cp=1"),
    ({"cp_cut": "contiguous"}, "cp=1"),
    ({"cp": 2, "cp_mode": "ulysses", "cp_cut": "contiguous"}, "leave it out"),
    ({"cp": 16, "cp_mode": "ulysses"}, "use cp of 1, 2, 4, 8"),
    ({"cp": 3}, "straddle|sequences of"),
    ({"order": "tp-cp-dp-pp"}, "leave cp out"),
    ({"cp": 2, "order": "cp-tp-dp-pp"}, "cp beside dp"),
    ({"cp": 0}, "from 1"),
    ({"cp": 4, "dp": 8}, "needs 32"),
)


@pytest.mark.parametrize(("plan", "remedy"), REFUSED)
def test_what_cannot_be_cut_is_refused(plan: dict[str, object], remedy: str) -> None:
    """With what could be."""
    with pytest.raises(PlanError, match=remedy):
        predict(**plan)  # type: ignore[arg-type]


def test_models_and_software_that_cannot_are_refused() -> None:
    """Images, recurrences, attention that is not fused, windows in a ring, and masks that leave nothing uneven."""
    plan, recipe = Plan(cp=2), Recipe(global_batch=8)
    for name in ("vit-b-16", "resnet-50", "gnmt"):
        with pytest.raises(PlanError, match="use cp=1"):
            simulate(load_model(name), CLUSTER, plan, recipe)
    with pytest.raises(PlanError, match="in a window"):
        simulate(load_model("gpt-oss-20b"), CLUSTER, plan, recipe)
    with pytest.raises(PlanError, match="unfused"):
        simulate(MODEL, CLUSTER, plan, recipe, software=replace(SOFTWARE, attention={"default": "unfused"}))
    with pytest.raises(PlanError, match="not causal"):
        simulate(load_model("bert-base"), CLUSTER, Plan(cp=2, cp_cut="contiguous"), recipe)
