"""Traced modules against what torch itself counts and keeps, and against the builders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

import foretrain as ft
from foretrain.errors import ModelError
from foretrain.models.attention import CoreAttention
from foretrain.models.cross_attention import CrossAttention
from foretrain.models.matmul import Linear
from foretrain.models.moves import Moves
from foretrain.models.ops import Layout
from foretrain.models.transformer import build, transformer_from_dimensions
from foretrain.sim.cost import Pricer

torch = pytest.importorskip("torch")
nn = torch.nn
functional = torch.nn.functional

SEQ, HIDDEN, HEADS, WIDTH, VOCAB, LAYERS = 24, 32, 4, 56, 96, 3


def flop(model: ft.Model, samples: int, *, backward: bool = True) -> float:
    """Return the model FLOPs of a batch, forward and backward."""
    layout = Layout(micro_batch=samples)
    return sum(
        count * kernel.model_flop
        for block, count in model.blocks()
        for op in block.ops
        for kernel in (*op.forward(layout), *(op.backward(layout) if backward else ()))
    )


def counted(module: Any, *inputs: Any) -> float:
    """Return what torch counts for one forward and backward pass on shapes, where attention is separate products."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  # torch is optional

    with FlopCounterMode(display=False) as counter:
        module.to("meta")(*(one.to("meta") for one in inputs)).sum().backward()
    return float(counter.get_total_flops())


def saved(model: ft.Model, samples: int, **layout: Any) -> float:
    one = Layout(micro_batch=samples, element_bytes=4.0, **layout)
    return sum(count * op.saved_bytes(one) for block, count in model.blocks() for op in block.ops)


@dataclass(frozen=True)
class Sizes:
    """Dimensions of a decoder."""

    hidden: int = HIDDEN
    heads: int = HEADS
    width: int = WIDTH
    vocab: int = VOCAB


SMALL = Sizes()


class Attention(nn.Module):  # type: ignore[misc]
    """Attention and gated MLP between RMS norms, as Llama has them."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads, width = sizes.heads, sizes.hidden
        self.norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, sizes.width, bias=False) for _ in range(2))
        self.down = nn.Linear(sizes.width, width, bias=False)

    def forward(self, x: Any) -> Any:  # noqa: D102  # torch's
        y = self.norm(x)
        q, k, v = (one(y).view(*y.shape[:2], self.heads, -1).transpose(1, 2) for one in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(x.shape))
        y = self.mlp_norm(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):  # type: ignore[misc]
    """A decoder of such layers."""

    def __init__(self, layers: int = LAYERS, sizes: Sizes = SMALL) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(sizes.vocab, sizes.hidden), nn.RMSNorm(sizes.hidden)
        self.layers = nn.ModuleList(Attention(sizes) for _ in range(layers))
        self.head = nn.Linear(sizes.hidden, sizes.vocab, bias=False)

    def forward(self, tokens: Any) -> Any:  # noqa: D102  # torch's
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


TOKENS = torch.zeros(2, SEQ, dtype=torch.int64)
SPEC = transformer_from_dimensions(
    "llama", name="llama", layers=LAYERS, hidden=HIDDEN, heads=HEADS, ffn_hidden=WIDTH, vocab=VOCAB, seq_len=SEQ
)


def mlp() -> Any:
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))


def test_a_perceptron_keeps_what_paper_and_pencil_say() -> None:
    """16 inputs, the 64 outputs of the ReLU, the 64 inputs of the GELU and its 64 outputs: 208 fp32 numbers a sample."""
    model = ft.from_module(mlp(), torch.empty(4, 16))
    assert saved(model, 4) == 4 * 208 * 4
    assert model.parameters == 17 * 64 + 65 * 64 + 65 * 10
    # Three products forward; backward two each, but no gradient of the data.
    assert model.flop_per_sample() == 2 * (3 * (16 * 64 + 64 * 64 + 64 * 10) - 16 * 64)


def test_a_traced_llama_is_the_builders() -> None:
    """Parameters, FLOPs, what tensor parallelism must divide and the tensors at cuts agree with the model from dimensions."""
    traced, built = ft.from_module(Llama(), TOKENS), build(SPEC)
    assert traced.parameters == built.parameters
    assert traced.flop_per_sample() == built.flop_per_sample()
    assert dict(traced.tensor_dims) == dict(built.tensor_dims)
    assert (traced.depth, traced.seq_len, traced.item) == (LAYERS, SEQ, "token")
    assert traced.layers[0][0].input_elements == built.layers[0][0].input_elements
    tied = [sum(op.parameters_per_rank(2) for op in block.ops) for block in (traced.layers[0][0], built.layers[0][0])]
    assert tied[0] == tied[1]


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_flop_of_a_decoder_are_what_torch_counts(micro_batch: int) -> None:
    """Attention included, which torch counts as separate products."""
    model = ft.from_module(Llama(), TOKENS)
    assert flop(model, micro_batch) == counted(Llama(), torch.zeros(micro_batch, SEQ, dtype=torch.int64))


def test_equal_layers_are_one_block_that_is_the_whole_trace() -> None:
    """Three layers fold into one block and a count; a trace that cannot fold, of unequal layers, sums to the same."""
    model = ft.from_module(Llama(), TOKENS)
    assert [count for _, count in model.layers] == [LAYERS]
    single = [ft.from_module(Llama(layers), TOKENS) for layers in (1, 2)]
    for measure in (lambda one: one.parameters, lambda one: flop(one, 2), lambda one: saved(one, 2)):
        one, two = (measure(each) for each in single)
        assert measure(model) == pytest.approx(one + (LAYERS - 1) * (two - one))


def test_autograd_keeps_what_the_trace_says() -> None:
    """Every tensor that autograd really keeps for a pass on the processor, parameters apart."""
    module, kept = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.LayerNorm(32), nn.Linear(32, 8), nn.Sigmoid()), dict[int, int]()
    weights = {one.untyped_storage().data_ptr() for one in module.parameters()}

    def pack(tensor: Any) -> Any:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(torch.randn(6, 16))
    assert saved(ft.from_module(module, torch.empty(6, 16)), 6) == sum(kept.values())


class Gated(nn.Module):  # type: ignore[misc]
    """The MLP of Llama alone."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(8, 16, bias=False), nn.Linear(8, 16, bias=False), nn.Linear(16, 8, bias=False)

    def forward(self, x: Any) -> Any:  # noqa: D102  # torch's
        return self.down(functional.silu(self.gate(x)) * self.up(x))


def test_a_compiled_chain_reads_and_writes_once() -> None:
    """silu(gate) · up: eager 5 passes and 2 launches, compiled 3 and 1; backward 9 and 3, compiled 5 and 1."""
    chain = next(op for op in ft.from_module(Gated(), torch.empty(2, 5, 8)).layers[0][0].ops if isinstance(op, Moves))
    eager, compiled = Layout(micro_batch=1, element_bytes=1.0), Layout(micro_batch=1, element_bytes=1.0, fused=frozenset({"pointwise"}))
    elements = 5 * 16
    kernels = [run(one) for one in (eager, compiled) for run in (chain.forward, chain.backward)]
    assert [[(one.moved_bytes / elements, one.launches) for one in each] for each in kernels] == [[(5, 2)], [(9, 3)], [(3, 1)], [(5, 1)]]
    assert (chain.saved_bytes(eager) / elements, chain.saved_bytes(compiled) / elements) == (3, 2)


def test_a_compiled_chain_is_faster() -> None:
    """The same module under a software that fuses and one that does not, all else equal."""
    model, cluster = ft.from_module(Llama(), TOKENS), ft.load_cluster("dgx-a100-80gb:1")
    software = ft.load_software("pytorch-eager")
    fused = replace(software, fused=software.fused | {"pointwise"})
    times = [ft.simulate(model, cluster, ft.Plan(dp=8), ft.Recipe(global_batch=64), software=one).step_s for one in (software, fused)]
    assert times[1] < times[0]


def test_attention_follows_the_software() -> None:
    """One fused kernel under flash, products and a softmax without; dropout and masks are seen."""

    class Cross(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.q, self.kv = nn.Linear(32, 32), nn.Linear(32, 64)

        def forward(self, x: Any, memory: Any) -> Any:
            q = self.q(x).view(x.shape[0], -1, 4, 8).transpose(1, 2)
            k, v = self.kv(memory).view(x.shape[0], -1, 4, 16).transpose(1, 2).chunk(2, -1)
            return functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1)

    model = ft.from_module(Cross(), [torch.empty(2, 6, 32), torch.empty(2, 10, 32)])
    op = next(op for block, _ in model.blocks() for op in block.ops if isinstance(op, CrossAttention))
    assert (op.queries, op.keys, op.heads, op.head_dim, op.dropout) == (6, 10, 4, 8, True)
    flash, plain = Layout(micro_batch=3, flash=True), Layout(micro_batch=3)
    assert len(op.forward(flash)) == 1
    asked = 2 * 2 * 3 * 4 * 6 * 10 * 8
    assert sum(kernel.model_flop for kernel in op.forward(flash)) == sum(kernel.model_flop for kernel in op.forward(plain)) == asked
    assert sum(kernel.model_flop for kernel in op.backward(flash)) == sum(kernel.model_flop for kernel in op.backward(plain)) == 2 * asked


def test_cross_attention_of_equal_sides_is_core_attention() -> None:
    """Where queries and keys are alike the two ops agree, kernel by kernel."""
    sizes: dict[str, Any] = {"name": "a", "heads": 4, "kv_heads": 4, "head_dim": 8, "causal": False, "dropout": True}
    core, cross = CoreAttention(tokens=16, **sizes), CrossAttention(queries=16, keys=16, value_dim=8, **sizes)
    for layout in (Layout(micro_batch=2), Layout(micro_batch=2, flash=True), Layout(micro_batch=2, fused=frozenset({"softmax"}))):
        for run in ("forward", "backward"):
            one, two = ([(k.flop, k.moved_bytes, k.launches) for k in getattr(op, run)(layout)] for op in (core, cross))
            assert one == two
        assert core.saved_bytes(layout) == cross.saved_bytes(layout)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(kind: str) -> None:
    """Parameters exact, and the FLOPs of torch's own step-by-step products, embedding and head included."""

    class Recurrent(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(50, 12), nn.Linear(32, 50)
            self.cells = getattr(nn, kind)(12, 16, 2, batch_first=True, bidirectional=True)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.cells(self.embed(tokens))[0])

    module, tokens = Recurrent(), torch.zeros(3, 7, dtype=torch.int64)
    model = ft.from_module(module, tokens)
    assert model.parameters == sum(one.numel() for one in module.parameters())
    # Torch has no gradient for the states that a sequence begins with; the library's products have all steps alike.
    begin = 3 * 4 * 2 * 16 * {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * 16
    assert flop(model, 3) == pytest.approx(counted(module, tokens) + begin)


def test_frozen_weights_have_no_gradient() -> None:
    """A frozen layer runs no product for its weight and keeps no input; what is before it and frozen too gets none at all."""
    module = mlp()
    module[0].requires_grad_(requires_grad=False)
    layers = [op for block, _ in ft.from_module(module, torch.empty(4, 16)).blocks() for op in block.ops if isinstance(op, Linear)]
    assert [(one.trained, one.input_grad) for one in layers] == [(False, False), (True, False), (True, True)]
    assert ft.from_module(module, torch.empty(4, 16)).parameters == sum(one.numel() for one in module.parameters())


def test_tied_weights_count_once_and_sit_at_both_ends() -> None:
    """A head that shares the embedding: one count of parameters, and both ends of a pipeline hold it."""
    module = Llama()
    module.head.weight = module.embed.weight
    model = ft.from_module(module, TOKENS)
    assert model.parameters == sum(one.numel() for one in module.parameters())
    assert model.tied_parameters == VOCAB * HIDDEN


def test_the_module_is_left_as_it_was() -> None:
    """No gradient, no running statistic, no mode and no weight changes."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2)).eval()
    module(torch.zeros(1, 3, 8, 8))
    before = {name: one.clone() for name, one in module.state_dict().items()}
    ft.from_module(module, torch.empty(2, 3, 8, 8))
    assert not module.training
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())
    assert all(one.grad is None for one in module.parameters())


def test_optimizer_states_are_the_simulators() -> None:
    """AdamW holds two fp32 moments and the fp32 master of each parameter, whoever described the model."""
    model, cluster = ft.from_module(Llama(), TOKENS), ft.load_cluster("dgx-a100-80gb:1")
    plan, recipe = ft.Plan(dp=8), ft.Recipe(global_batch=64)
    memory = [ft.simulate(one, cluster, plan, recipe).memory[0].components["optimizer"] for one in (model, build(SPEC))]
    assert memory[0] == memory[1] == 12 * model.parameters


@pytest.mark.parametrize("plan", [ft.Plan(dp=1, tp=4, pp=2, sequence_parallel=True), ft.Plan(dp=8, zero=3), ft.Plan(dp=4, tp=2)])
def test_plans_cost_what_the_builders_model_costs(plan: ft.Plan) -> None:
    """A billion parameters in four layers, described in dimensions and traced: the same FLOPs, and a step within a tenth.

    The small ops are the module's own in the one and the usual ones in the other, hence no equality.
    """
    sizes = Sizes(hidden=4096, heads=32, width=11008, vocab=32000)
    with torch.device("meta"):
        module = Llama(4, sizes)
    traced = ft.from_module(module, torch.zeros(2, 2048, dtype=torch.int64, device="meta"))
    built = build(transformer_from_dimensions(
        "llama", name="llama", layers=4, hidden=4096, heads=32, ffn_hidden=11008, vocab=32000, seq_len=2048
    ))  # fmt: skip
    cluster, recipe, software = ft.load_cluster("dgx-a100-80gb:1"), ft.Recipe(global_batch=64), ft.load_software("pytorch-fsdp-compiled")
    one, two = (ft.simulate(model, cluster, plan, recipe, software=software) for model in (traced, built))
    assert one.model_flop == two.model_flop
    assert one.step_s == pytest.approx(two.step_s, rel=0.1)
    assert one.peak_memory_bytes == pytest.approx(two.peak_memory_bytes, rel=0.1)


def test_a_block_that_is_no_chain_is_one_unit() -> None:
    """Skips across blocks leave nothing to cut: a pipeline is refused with the reason, and so is tensor parallelism."""

    class Skips(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(8, 8)
            self.down = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(2))
            self.up = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(2))

        def forward(self, x: Any) -> Any:
            kept = [self.stem(x)]
            for layer in self.down:
                kept.append(layer(kept[-1]))
            x = kept.pop()
            for layer in self.up:
                x = layer(x) * kept.pop()
            return x

    model, cluster, recipe = ft.from_module(Skips(), torch.empty(2, 8)), ft.load_cluster("dgx-a100-80gb:1"), ft.Recipe(global_batch=8)
    assert (model.depth, model.prologue, model.epilogue) == (1, (), ())
    with pytest.raises(ft.ForetrainError, match="is one unit: its blocks do not hand on one tensor each"):
        ft.simulate(model, cluster, ft.Plan(pp=2), recipe)
    with pytest.raises(ft.ForetrainError, match=r"could cut \(stem.addmm has no partner"):
        ft.simulate(model, cluster, ft.Plan(tp=2), recipe)


def test_convolutions_of_weights_made_in_the_forward_pass() -> None:
    """Standardised filters: the parameter is counted once, where it is first read."""

    class Standard(nn.Conv2d):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            weight = (self.weight - self.weight.mean()) / self.weight.std()
            return functional.conv2d(x, weight, self.bias)

    module = nn.Sequential(Standard(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    model = ft.from_module(module, torch.empty(2, 3, 12, 12))
    assert model.parameters == sum(one.numel() for one in module.parameters())
    assert flop(model, 2) == counted(module, torch.zeros(2, 3, 12, 12))


def test_constants_may_be_looked_at() -> None:
    """Positions hang on no input: code may branch on them."""

    class Positions(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            steps = torch.arange(x.shape[1], device=x.device)
            return self.linear(x) if (steps.diff() == 1).all() else x

    assert ft.from_module(Positions(), torch.empty(2, 3, 4)).parameters == 20


def refused(module: Any, *inputs: Any) -> str:
    with pytest.raises(ModelError) as caught:
        ft.from_module(module, list(inputs))
    return str(caught.value)


class Inner(nn.Module):  # type: ignore[misc]
    """A module inside another that does what a test hands it."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what, self.linear = what, nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:  # noqa: D102  # torch's
        return self.what(self.linear(x))


def outer(what: Any) -> Any:
    return nn.Sequential(nn.Linear(4, 4), Inner(what))


REFUSED: dict[str, tuple[Any, str]] = {
    "value": (lambda y: y if y.sum().item() > 0 else -y, "Sequential.1: .item() needs the values"),
    "mask": (lambda y: y[y > 0], "Sequential.1: index needs the values"),
    "nonzero": (lambda y: y[y.nonzero()], "Sequential.1: nonzero needs the values"),
    "pairs": (lambda y: y @ y.T, "multiplies samples of a batch with one another"),
    "no formula": (lambda y: torch.linalg.inv(torch.einsum("bi,bj->bij", y, y)), "has no formula"),
    "fails": (lambda y: y.view(3, 5), "Sequential.1 failed in forward on inputs of 2×4"),
    "no gradient": (lambda y: y.argmax(-1), "no output has a gradient"),
    "loops": (lambda y: sum((row for row in y), torch.zeros(4)), "must do the same whatever the batch"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_traced_is_said_with_the_place(kind: str) -> None:
    """A line that names the innermost module and what it did."""
    what, expected = REFUSED[kind]
    assert expected in refused(outer(what), torch.empty(2, 4))


def test_wrong_inputs_are_said() -> None:
    """No samples, no module, no parameters, a wrong item."""
    assert "no sample" in refused(mlp(), torch.empty(0, 16))
    assert "dimension of samples" in refused(mlp(), torch.tensor(1.0))
    assert "no parameters" in refused(nn.ReLU(), torch.empty(2, 4))
    with pytest.raises(ModelError, match=r"no torch\.nn\.Module"):
        ft.from_module("resnet50", torch.empty(2, 4))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="token, image or sample"):
        ft.from_module(mlp(), torch.empty(2, 16), item="pixel")


def test_checkpointing_inside_the_module_is_refused() -> None:
    """The plan says what is recomputed; a module that does it by itself would be counted twice."""
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

    class Checkpointed(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner = nn.Linear(4, 4), mlp4()

        def forward(self, x: Any) -> Any:
            return checkpoint(self.inner, self.first(x), use_reentrant=False)

    def mlp4() -> Any:
        return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))

    assert "checkpoint" in refused(Checkpointed(), torch.empty(2, 4))


def test_a_huge_module_takes_no_memory() -> None:
    """A trillion parameters on no device."""
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(2**20, 2**20), nn.ReLU(), nn.Linear(2**20, 2**10))
    assert ft.from_module(module, torch.empty(2, 2**20, device="meta")).parameters > 10**12


def test_every_op_of_a_trace_can_be_priced() -> None:
    """Each kernel of each op has a cost on an accelerator."""
    model, cluster = ft.from_module(Llama(), TOKENS), ft.load_cluster("dgx-a100-80gb:1")
    pricer = Pricer(cluster.accelerator, ft.load_software("pytorch-eager"), "bf16")
    layout = Layout(micro_batch=2)
    for block, _ in model.blocks():
        for op in block.ops:
            kernels = (*op.forward(layout), *op.backward(layout))
            assert all(pricer.work(kernel).device_s > 0 for kernel in kernels if not kernel.views)


def test_a_trained_bias_of_the_scores_gets_its_gradient() -> None:
    """A table of positions added to the scores: backward sums the scores' gradients for it, as for any other parameter."""

    class Biased(nn.Module):  # type: ignore[misc]
        def __init__(self, *, trained: bool) -> None:
            super().__init__()
            self.qkv = nn.Linear(8, 24)
            self.table = nn.Parameter(torch.zeros(2, 5, 5), requires_grad=trained)

        def forward(self, x: Any) -> Any:
            q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=self.table[None])

    moved = [
        sum(kernel.moved_bytes for block, _ in model.blocks() for op in block.ops for kernel in op.backward(Layout(micro_batch=1)))
        for model in (ft.from_module(Biased(trained=trained), torch.empty(2, 5, 8)) for trained in (False, True))
    ]
    scores = 2 * 5 * 5
    assert moved[1] - moved[0] == (scores + scores) * 2.0  # read once per sample, written once


def test_what_a_block_finds_in_its_input_is_its_own() -> None:
    """The tensor between blocks is kept by the block that reads it, the same in every one."""

    class Layer(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x: Any) -> Any:
            return x + self.down(torch.tanh(self.up(self.norm(x))))

    model = ft.from_module(nn.Sequential(nn.Linear(4, 8), *(Layer() for _ in range(3))), torch.empty(2, 4))
    assert [count for _, count in model.layers] == [3]


def test_a_compiled_chain_keeps_what_the_next_product_reads() -> None:
    """ReLU keeps its result, and so does the product after it: compiled or not, one tensor of 64 stays, beside the 16 of the input."""
    model = ft.from_module(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 10), nn.Tanh(), nn.Tanh()), torch.empty(2, 16))
    assert saved(model, 2) == 2 * (16 + 64 + 10 + 10) * 4
    # The two tangents are worked out again from their input.
    assert saved(model, 2, fused=frozenset({"pointwise"})) == 2 * (16 + 64 + 10) * 4


def test_a_compiled_norm_keeps_its_input_alone() -> None:
    """Batch norm and ReLU after a convolution: its output once, and the result that the next convolution reads."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))
    model = ft.from_module(module, torch.empty(2, 3, 10, 10))
    maps, image, statistics = 4 * 64, 3 * 100, 2 * 4
    assert saved(model, 2) == 4 * (2 * (image + 2 * maps) + statistics)
    assert saved(model, 2, fused=frozenset({"pointwise"})) == 4 * 2 * (image + 2 * maps)
