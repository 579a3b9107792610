"""Decoder transformers against the closed forms of the papers that define them."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import ModelError
from foretrain.models.load import load_spec
from foretrain.models.model import Block, Model
from foretrain.models.ops import Boundary, Kernel, Layout
from foretrain.models.patterns import FUSION_PATTERNS
from foretrain.models.transformer import Transformer, build, transformer_from_dimensions
from tests.models.shapes import TP, gpts, llamas

properties = settings(deadline=None, derandomize=True, max_examples=50)


def layer_saved_bytes(spec: Transformer, layout: Layout, *, without: str = "never") -> float:
    return sum(op.saved_bytes(layout) for op in build(spec).layers[0][0].ops if op.group != without)


def kernels(model: Model, layout: Layout) -> Iterator[tuple[int, Kernel]]:
    for block, count in model.blocks():
        for op in block.ops:
            yield from ((count, kernel) for kernel in (*op.forward(layout), *op.backward(layout)))


def model_flop(model: Model, layout: Layout) -> float:
    return sum(count * kernel.model_flop for count, kernel in kernels(model, layout))


def flop(model: Model, layout: Layout) -> float:
    return sum(count * kernel.flop for count, kernel in kernels(model, layout))


@properties
@given(spec=gpts())
def test_parameters_of_a_gpt_take_the_closed_form(spec: Transformer) -> None:
    """12·l·h²·(1 + 13/12h) + (V + s)·h, Narayanan et al., equation 2, and the final norm which it leaves out."""
    l, h = spec.layers, spec.hidden  # noqa: E741  # the paper's letters
    assert build(spec).parameters == 12 * l * h**2 + 13 * l * h + (spec.vocab + spec.seq_len) * h + 2 * h


@properties
@given(spec=gpts())
def test_model_flop_of_a_gpt_takes_the_closed_form(spec: Transformer) -> None:
    """72·s·l·h²·(1 + s/6h + V/12lh): Narayanan et al., equation 3, less its recomputed forward pass."""
    l, h, s = spec.layers, spec.hidden, spec.seq_len  # noqa: E741  # the paper's letters
    assert build(spec).flop_per_sample() == pytest.approx(72 * s * l * h**2 * (1 + s / (6 * h) + spec.vocab / (12 * l * h)), rel=1e-12)


@properties
@given(spec=gpts(), micro_batch=st.integers(1, 16))
def test_activations_of_a_layer_take_the_closed_form(spec: Transformer, micro_batch: int) -> None:
    """s·b·h·(34 + 5as/h): Korthikanti et al., arXiv:2205.05198, equation 1."""
    s, h, a = spec.seq_len, spec.hidden, spec.heads
    expected = s * micro_batch * h * (34 + 5 * a * s / h)
    assert layer_saved_bytes(spec, Layout(micro_batch=micro_batch)) == pytest.approx(expected, rel=1e-12)
    fused = Layout(micro_batch=micro_batch, fused=FUSION_PATTERNS)
    assert layer_saved_bytes(spec, fused) == pytest.approx(expected, rel=1e-12)


@properties
@given(spec=gpts(), tp=st.sampled_from(TP), micro_batch=st.integers(1, 16))
def test_activations_under_tensor_parallelism_take_the_closed_form(spec: Transformer, tp: int, micro_batch: int) -> None:
    """s·b·h·(10 + 24/t + 5as/ht), with sequence parallelism s·b·h·(34/t + 5as/ht): Korthikanti et al., table 2."""
    s, h, a, size = spec.seq_len, spec.hidden, spec.heads, spec.seq_len * micro_batch * spec.hidden
    tensor = Layout(micro_batch=micro_batch, tp=tp)
    assert layer_saved_bytes(spec, tensor) == pytest.approx(size * (10 + 24 / tp + 5 * a * s / (h * tp)), rel=1e-12)
    sequence = replace(tensor, sequence_parallel=True)
    assert layer_saved_bytes(spec, sequence) == pytest.approx(size * (34 / tp + 5 * a * s / (h * tp)), rel=1e-12)


@properties
@given(spec=gpts(), tp=st.sampled_from(TP))
def test_selective_recomputation_leaves_what_the_paper_says(spec: Transformer, tp: int) -> None:
    """34·s·b·h/t once the core of attention is run again: Korthikanti et al., equation 6. Q, K and V survive."""
    layout = Layout(micro_batch=2, tp=tp, sequence_parallel=True)
    expected = 34 * spec.seq_len * 2 * spec.hidden / tp
    assert layer_saved_bytes(spec, layout, without="core_attention") == pytest.approx(expected, rel=1e-12)


@properties
@given(spec=gpts(), tp=st.sampled_from(TP))
def test_fused_attention_keeps_a_statistic_instead_of_the_scores(spec: Transformer, tp: int) -> None:
    """34·s·b·h/t and one fp32 number per head and query."""
    layout = Layout(micro_batch=1, tp=tp, sequence_parallel=True, flash=True)
    expected = (34 * spec.seq_len * spec.hidden + 4 * spec.heads * spec.seq_len) / tp
    assert layer_saved_bytes(spec, layout) == pytest.approx(expected, rel=1e-12)


@properties
@given(spec=gpts(), tp=st.sampled_from(TP))
def test_ends_of_a_model_save_the_closed_form(spec: Transformer, tp: int) -> None:
    """Mask of the embedding's dropout, s·b·h/t; norm, logits and loss, 4·s·b·h·(1 + v/h)/t: Korthikanti et al., section 4.3."""
    model, layout = build(spec), Layout(micro_batch=1, tp=tp, sequence_parallel=True)
    s, h, v = spec.seq_len, spec.hidden, spec.vocab
    first, last = (sum(op.saved_bytes(layout) for op in block.ops) for block in (model.prologue[0], model.epilogue[0]))
    assert first == pytest.approx(s * h / tp, rel=1e-12)
    assert last == pytest.approx(4 * s * h * (1 + v / h) / tp, rel=1e-12)


@properties
@given(spec=st.one_of(gpts(), llamas()), tp=st.sampled_from(TP), flash=st.booleans(), sequence_parallel=st.booleans())
def test_tensor_parallel_ranks_share_the_flop_equally(spec: Transformer, tp: int, flash: bool, sequence_parallel: bool) -> None:  # noqa: FBT001  # drawn
    """The ranks together run what one would, and ask for what one would."""
    model, one = build(spec), Layout(micro_batch=3, flash=flash)
    cut = replace(one, tp=tp, sequence_parallel=sequence_parallel)
    assert tp * flop(model, cut) == pytest.approx(flop(model, one), rel=1e-12)
    assert tp * model_flop(model, cut) == pytest.approx(model_flop(model, one), rel=1e-12)
    assert model_flop(model, one) == pytest.approx(3 * model.flop_per_sample(), rel=1e-12)


@properties
@given(spec=st.one_of(gpts(), llamas()))
def test_unfused_attention_runs_what_the_model_asks(spec: Transformer) -> None:
    """Separate products run the masked half too, and nothing twice; a fused kernel skips the half and runs the scores again."""
    model = build(spec)
    unfused, fused = (flop(model, Layout(micro_batch=1, flash=flash)) for flash in (False, True))
    assert unfused == pytest.approx(model.flop_per_sample(), rel=1e-12)
    core = 12 * spec.layers * spec.seq_len**2 * spec.heads * spec.head_width
    assert fused == pytest.approx(unfused - core + core / 3 * 3.5 / 2, rel=1e-12)


@properties
@given(spec=st.one_of(gpts(), llamas()), tp=st.sampled_from(TP[1:]), flash=st.booleans())
def test_sequence_parallelism_saves_less(spec: Transformer, tp: int, flash: bool) -> None:  # noqa: FBT001  # drawn
    """What every rank held whole is shared."""
    plain = Layout(micro_batch=1, tp=tp, flash=flash)
    assert layer_saved_bytes(spec, replace(plain, sequence_parallel=True)) < layer_saved_bytes(spec, plain)


@properties
@given(spec=st.one_of(gpts(), llamas()), flash=st.booleans(), pattern=st.sampled_from(sorted(FUSION_PATTERNS)))
def test_fusion_never_moves_or_launches_more(spec: Transformer, flash: bool, pattern: str) -> None:  # noqa: FBT001  # drawn
    """Each fused pattern moves at most the bytes, and launches at most the kernels, of its parts."""
    plain = Layout(micro_batch=1, flash=flash)
    fused = replace(plain, fused=frozenset({pattern}))
    for block, _ in build(spec).blocks():
        for op in block.ops:
            for parts, whole in ((op.forward(plain), op.forward(fused)), (op.backward(plain), op.backward(fused))):
                assert sum(k.moved_bytes for k in whole) <= sum(k.moved_bytes for k in parts)
                assert sum(k.launches for k in whole) <= sum(k.launches for k in parts)


@properties
@given(spec=gpts(), tp=st.sampled_from(TP))
def test_ranks_hold_the_parameters_once_but_norms_and_late_biases(spec: Transformer, tp: int) -> None:
    """Weights are cut; the norms (4h), the row-parallel biases (2h), the positions and the final norm (2h) are whole on every rank."""
    model = build(spec)
    held = sum(count * op.parameters_per_rank(tp) for block, count in model.blocks() for op in block.ops)
    everything = model.parameters + model.tied_parameters
    whole = 6 * spec.layers * spec.hidden + spec.seq_len * spec.hidden + 2 * spec.hidden
    assert held == pytest.approx(whole + (everything - whole) / tp, rel=1e-12)


def test_boundaries_stand_where_megatron_puts_them() -> None:
    """A layer enters and leaves two regions; the embedding leaves one; the head enters one and reduces its loss."""
    model = build(load_spec("gpt3-175b"))
    kinds = [[step.kind for step in block.steps if isinstance(step, Boundary)] for block, _ in model.blocks()]
    assert kinds == [["leave"], ["enter", "leave"] * 2, ["enter", "loss"]]


def test_padding_the_vocabulary_adds_work_but_no_parameters_nor_model_flop() -> None:
    """Megatron-LM computes 51,200 logits for GPT-2's 50,257 words at tp = 8."""
    spec = load_spec("gpt3-175b")
    logits = next(op for op in build(spec).epilogue[0].ops if op.name == "logits")
    (kernel,) = logits.forward(Layout(micro_batch=1, tp=8))
    assert kernel.gemm is not None
    assert kernel.gemm.n * 8 == 51_200
    assert kernel.flop / kernel.model_flop == pytest.approx(51_200 / 50_257)
    assert logits.parameters == 50_257 * 12_288


def test_another_sequence_length_rebuilds_every_op() -> None:
    """Per-token work scales with the sequence, attention with its square, the position table stays."""
    short = build(load_spec("gpt2"))
    half = short.at_sequence(512)
    assert half.parameters == short.parameters
    assert half.at_sequence(1024).flop_per_sample() == short.flop_per_sample()
    assert short.at_sequence(2048).parameters == short.parameters + 1024 * 768


def test_a_model_travels_to_another_process() -> None:
    """Sweeps send models to worker processes."""
    model = pickle.loads(pickle.dumps(build(load_spec("llama3-8b"))))
    assert model.at_sequence(4096).seq_len == 4096


def test_building_and_asking_a_layer_are_quick() -> None:
    """A model under 2 ms, all answers of a layer under 1 ms (best of many, so that a busy machine does not matter)."""
    spec, layout = load_spec("gpt3-175b"), Layout(micro_batch=1, tp=8)
    block = build(spec).layers[0][0]
    assert best_s(lambda: build(spec)) < 2e-3
    assert best_s(lambda: ask(block, layout)) < 1e-3


def ask(block: Block, layout: Layout) -> None:
    for op in block.ops:
        op.forward(layout), op.backward(layout), op.saved_bytes(layout)


def best_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(50):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


GOOD = {"name": "m", "layers": 2, "hidden": 64, "heads": 4, "vocab": 100, "seq_len": 16}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"heads": 5}, "heads=5 does not divide hidden=64; use a divisor (4 or 8)"),
        ({"kv_heads": 3}, "kv_heads=3 does not divide heads=4; use 2 or 4"),
        ({"layers": 0}, "layers 0 is out of range; give a whole number from 1 to"),
        ({"hidden": -64}, "hidden -64 is out of range"),
        ({"vocab": 10**12}, "vocab 1,000,000,000,000 is out of range"),
        ({"seq_len": 16.0}, "seq_len 16.0 is no whole number"),
        ({"layers": True}, "layers True is no whole number"),
        ({"activation": "gleu"}, "did you mean 'gelu', 'geglu'"),
        ({"positions": "rotery"}, "did you mean 'rotary'"),
        ({"norm": "batch"}, "use one of layernorm, rmsnorm"),
        ({"activation": "swiglu"}, "set gated: true"),
        ({"window": 0}, "window 0 is out of range"),
    ],
)
def test_impossible_dimensions_are_refused_with_the_remedy(wrong: dict[str, object], said: str) -> None:
    """One clear sentence, naming the field, its value and what to give."""
    with pytest.raises(ModelError) as caught:
        transformer_from_dimensions("gpt", **{**GOOD, **wrong})
    assert said in str(caught.value)


def test_every_impossible_dimension_is_named_at_once() -> None:
    """A user corrects a model once."""
    with pytest.raises(ModelError, match=r"layers -1 .*vocab 0 .*norm 'none'"):
        transformer_from_dimensions("gpt", **{**GOOD, "layers": -1, "vocab": 0, "norm": "none"})


def test_an_unknown_family_offers_the_nearest() -> None:
    """Families are few; the message lists them."""
    with pytest.raises(ModelError, match="did you mean 'llama'"):
        transformer_from_dimensions("lama", **GOOD)


def test_an_impossible_sequence_is_refused() -> None:
    """`--seq-len 0` is answered as any other dimension."""
    with pytest.raises(ModelError, match="seq_len 0 is out of range"):
        build(load_spec("gpt2")).at_sequence(0)
