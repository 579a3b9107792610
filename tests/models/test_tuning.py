"""Frozen blocks and LoRA adapters: counts by hand, properties, and torch's own count of what a partly frozen model computes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import ModelError
from foretrain.models.load import load_model
from foretrain.models.model import Model
from foretrain.models.ops import Boundary, Layout
from foretrain.models.transformer import Transformer, build, transformer_from_dimensions
from tests.models.shapes import gpts

LAYERS, HIDDEN, HEADS, KEYS, WIDTH, VOCAB, SEQ, RANK = 3, 64, 4, 2, 96, 100, 16, 4
LLAMA = build(
    transformer_from_dimensions(
        "llama", name="llama", layers=LAYERS, hidden=HIDDEN, heads=HEADS, kv_heads=KEYS, ffn_hidden=WIDTH, vocab=VOCAB, seq_len=SEQ
    )
)
GPT = build(transformer_from_dimensions("gpt", name="gpt", layers=LAYERS, hidden=HIDDEN, heads=HEADS, vocab=VOCAB, seq_len=SEQ))
LAYOUT = Layout(micro_batch=1)
properties = settings(deadline=None, derandomize=True, max_examples=25)


def names(model: Model, number: int) -> set[str]:
    """Return the matrix products of a layer's backward pass."""
    block = [block for block, count in model.layers for _ in range(count)][number]
    return {kernel.name for op in block.ops for kernel in op.backward(LAYOUT) if kernel.gemm is not None}


def saved(model: Model) -> float:
    return sum(count * op.saved_bytes(LAYOUT) for block, count in model.blocks() for op in block.ops)


def test_adapters_count_two_thin_products() -> None:
    """r·(in + out) for each, and nothing else trains: Hu et al., section 4.2."""
    model = LLAMA.with_lora(RANK, ["q_proj", "v_proj"])
    assert model.trained_parameters == LAYERS * RANK * ((HIDDEN + HIDDEN) + (HIDDEN + HIDDEN // 2))
    assert model.parameters == LLAMA.parameters + model.trained_parameters
    both = LLAMA.with_lora(RANK, ["qkv", "mlp_down"])
    assert both.trained_parameters == LAYERS * RANK * ((HIDDEN + 2 * HIDDEN) + (WIDTH + HIDDEN))


def test_all_linear_is_every_product_of_the_layers() -> None:
    """Seven in a Llama; neither embedding nor logits."""
    model = LLAMA.with_lora(RANK)
    widths = [(HIDDEN, HIDDEN), (HIDDEN, 32), (HIDDEN, 32), (HIDDEN, HIDDEN), (HIDDEN, WIDTH), (HIDDEN, WIDTH), (WIDTH, HIDDEN)]
    assert model.trained_parameters == LAYERS * RANK * sum(map(sum, widths))


def test_lora_of_a_released_model_counts_what_its_recipe_says() -> None:
    """Rank 8 on Q and V of Llama 2 7B: 4,194,304, the count that PEFT prints for it."""
    assert load_model("llama2-7b").with_lora(8, ["q_proj", "v_proj"]).trained_parameters == 4_194_304
    assert load_model("llama3-8b").with_lora(16, ["all-linear"]).trained_parameters == 41_943_040


def test_a_frozen_product_has_no_weight_gradient() -> None:
    """It passes gradients on, except in the first layer, where nothing before it trains."""
    model = LLAMA.with_lora(RANK, ["mlp_down"])
    assert names(model, 0) == {"mlp_down.lora.up.dgrad", "mlp_down.lora.up.wgrad", "mlp_down.lora.down.wgrad"}
    assert "qkv.dgrad" in names(model, 1)
    assert not any("wgrad" in name and "lora" not in name for name in names(model, 2))


def test_a_frozen_prefix_stands_still() -> None:
    """With only the head trained, no layer has a backward pass, none saves anything, and no gradient crosses a boundary."""
    model = LLAMA.frozen("embedding", "layers")
    assert all(block.still for block, _ in model.layers)
    assert saved(model) == sum(op.saved_bytes(LAYOUT) for op in model.epilogue[0].ops)
    assert not any(step.gradient for block, _ in model.layers for step in block.steps if isinstance(step, Boundary))
    forward = sum(
        count * kernel.model_flop for block, count in LLAMA.blocks() for op in block.ops for kernel in op.forward(LAYOUT)
    )
    assert model.flop_per_sample() == forward + 2 * 2 * SEQ * HIDDEN * VOCAB


def test_frozen_layers_above_a_trained_one_pass_gradients_on() -> None:
    """Layers frozen, the embedding trained: every data gradient is made, no weight gradient."""
    model = LLAMA.frozen("layers", "head")
    assert {name for name in names(model, 0) if name.endswith("dgrad")} >= {"qkv.dgrad", "mlp_up.dgrad"}
    assert not any("wgrad" in name for number in range(LAYERS) for name in names(model, number))


def test_a_tied_table_is_frozen_with_either_end() -> None:
    """Embedding and logits are one parameter."""
    assert GPT.trained_parameters == GPT.parameters
    table = VOCAB * HIDDEN
    assert GPT.frozen("embedding").trained_parameters == GPT.parameters - table - SEQ * HIDDEN
    assert GPT.frozen("head").trained_parameters == GPT.parameters - table - 2 * HIDDEN
    assert LLAMA.frozen("embedding").trained_parameters == LLAMA.parameters - table


def test_tuning_outlives_another_length() -> None:
    """The rebuilt model is tuned the same."""
    assert LLAMA.with_lora(RANK).at_sequence(32).trained_parameters == LLAMA.with_lora(RANK).trained_parameters
    assert LLAMA.frozen("layers").at_sequence(32).trained_parameters == LLAMA.frozen("layers").trained_parameters


@properties
@given(spec=gpts(), rank=st.integers(1, 64), tp=st.sampled_from([1, 2, 4, 8]))
def test_adapters_are_cheap_and_cut(spec: Transformer, rank: int, tp: int) -> None:
    """They train less, save less and compute less than full training does, where they are thin; ranks sum to the whole of what is cut."""
    whole = build(spec)
    model = whole.with_lora(min(rank, spec.hidden // 8))
    layout = Layout(micro_batch=1, tp=tp)
    assert model.trained_parameters < whole.trained_parameters
    adapter = next(op for op in model.layers[0][0].ops if op.name == "qkv.q_proj.lora")
    held = adapter.parameters_per_rank(tp)
    assert adapter.parameters / tp <= held <= adapter.parameters
    flop = sum(kernel.model_flop for kernel in (*adapter.forward(layout), *adapter.backward(layout)))
    alone = sum(kernel.model_flop for kernel in (*adapter.forward(LAYOUT), *adapter.backward(LAYOUT)))
    assert flop * tp == pytest.approx(alone)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LLAMA.frozen("heads"), "did you mean 'head'"),
        (lambda: LLAMA.frozen("embedding", "layers", "head"), "leaves nothing"),
        (lambda: LLAMA.with_lora(0), "whole number from 1"),
        (lambda: LLAMA.with_lora(10**9), "whole number from 1"),
        (lambda: LLAMA.with_lora(4, ["q_prj"]), "did you mean 'q_proj'"),
        (lambda: LLAMA.with_lora(4, []), "needs targets"),
        (lambda: load_model("gpt2").with_lora(rank=True), "whole number"),
    ],
)
def test_what_cannot_be_tuned_is_refused(make: Any, said: str) -> None:
    """With the names that would do."""
    with pytest.raises(ModelError, match=said):
        make()


TUNINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Q and V": ("llama", ("q_proj", "v_proj")),
    "K": ("llama", ("k_proj",)),
    "MLP": ("llama", ("gate_proj", "down_proj")),
    "cross-attention too": ("t5", ("q", "v")),
    "before the decoder": ("t5", ("wi",)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TUNINGS)
def test_flop_of_adapters_equal_what_torch_counts(name: str) -> None:
    """Of a model of transformers with adapters put in: frozen products and first layers included."""
    torch = pytest.importorskip("torch", reason="needs torch (the extra `torch`)")
    pytest.importorskip("transformers", reason="needs transformers (the extra `test`)")
    from tests.models import hugging_face as hub  # noqa: PLC0415  # needs both

    hub.ready()
    family, targets = TUNINGS[name]
    config = hub.configuration(*hub.CASES[family])
    model = hub.theirs(config, "cpu").train()
    put_in(torch, model, targets)
    mine = hub.ours(config, SEQ).with_lora(RANK, targets)
    assert mine.trained_parameters == hub.trainable(model)
    assert counted(torch, model, decoder=family == "t5") == mine.flop_per_sample()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frozen", [("embedding",), ("layers",), ("head",), ("embedding", "layers"), ("layers", "head")])
def test_flop_of_frozen_blocks_equal_what_torch_counts(frozen: tuple[str, ...]) -> None:
    """By `requires_grad` of their parameters."""
    torch = pytest.importorskip("torch", reason="needs torch (the extra `torch`)")
    pytest.importorskip("transformers", reason="needs transformers (the extra `test`)")
    from tests.models import hugging_face as hub  # noqa: PLC0415  # needs both

    hub.ready()
    config = hub.configuration("llama", hub.GQA)
    model = hub.theirs(config, "cpu").train()
    parts = {
        "embedding": [model.model.embed_tokens], "layers": [model.model.layers], "head": [model.model.norm, model.lm_head],
    }  # fmt: skip
    for part in frozen:
        for module in parts[part]:
            module.requires_grad_(requires_grad=False)
    mine = hub.ours(config, SEQ).frozen(*frozen)
    assert mine.trained_parameters == hub.trainable(model)
    assert counted(torch, model, decoder=False) == mine.flop_per_sample()


def put_in(torch: Any, model: Any, targets: tuple[str, ...]) -> None:
    """Freeze a model and put adapters beside its linear layers of those names."""
    model.requires_grad_(requires_grad=False)

    class Beside(torch.nn.Module):  # type: ignore[misc]  # torch is optional
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base = base
            self.down = torch.nn.Linear(base.in_features, RANK, bias=False)
            self.up = torch.nn.Linear(RANK, base.out_features, bias=False)

        @property
        def weight(self) -> Any:
            return self.base.weight

        def forward(self, x: Any) -> Any:
            return self.base(x) + self.up(self.down(x))

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in targets and isinstance(child, torch.nn.Linear):
                setattr(module, name, Beside(child))


def counted(torch: Any, model: Any, *, decoder: bool) -> float:
    """Return the FLOPs of one sample, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  # torch is optional

    tokens = torch.randint(3, 90, (1, SEQ))
    more = {"decoder_input_ids": tokens} if decoder else {}
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, use_cache=False, **more).logits.sum().backward()
    return float(counter.get_total_flops())


@pytest.mark.parametrize("name", ["resnet-50", "deepspeech2", "unet3d", "inception-v3", "vit-b-16", "bart-base", "mixtral-8x7b"])
@pytest.mark.parametrize("place", ["embedding", "layers", "head"])
def test_any_kind_of_model_trains_less_where_a_part_is_frozen(name: str, place: str) -> None:
    """Fewer parameters, no more FLOPs, bytes and products of weight gradients than the frozen part's share."""
    whole = load_model(name)
    part = whole.frozen(place)
    assert part.trained_parameters < whole.trained_parameters == whole.parameters
    assert part.parameters == whole.parameters
    assert part.flop_per_sample() <= whole.flop_per_sample()
    blocks = {"embedding": part.prologue, "layers": tuple(block for block, _ in part.layers), "head": part.epilogue}[place]
    assert not any("wgrad" in kernel.name for block in blocks for op in block.ops for kernel in op.backward(LAYOUT))
