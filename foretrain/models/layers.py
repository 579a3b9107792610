"""Layers of a transformer as blocks of steps, in the order Megatron-LM runs them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foretrain.models.attention_steps import attention_steps
from foretrain.models.matmul import Linear
from foretrain.models.mlp_steps import mlp_steps
from foretrain.models.model import Block, Step
from foretrain.models.parts import Experts, Layer, Mlp
from foretrain.models.patterns import BRANCH_ADD
from foretrain.models.steps import Rows, norm_step, residual
from foretrain.models.stream import Streaming

BEFORE = ("before", "around")
AFTER = ("after", "around")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a layer works: its own rows, those of the encoder that it looks back to, and what travels beside its input."""

    rows: Rows
    memory: Rows | None = None
    carried: int = 0


def layer_block(layer: Layer, place: Place) -> Block:
    """Return one layer as a block."""
    steps = _parallel(layer, place.rows) if layer.order.startswith("parallel") else _in_turn(layer, place)
    if layer.last is not None:
        steps = (*steps, norm_step("last_norm", layer.last, place.rows))
    if layer.shared:
        steps = tuple(_without_parameters(step) for step in steps)
    return Block(name=layer.name, steps=steps, input_elements=place.rows.elements + place.carried)


def _in_turn(layer: Layer, place: Place) -> tuple[Step, ...]:
    """Return branch after branch, each added to the residual stream."""
    rows = place.rows
    branches: list[tuple[str, tuple[Step, ...], bool]] = [
        ("attention", attention_steps("attention", layer.attention, rows), layer.attention.out_bias)
    ]
    if layer.cross is not None and place.memory is not None:
        branches.append(("cross", attention_steps("cross", layer.cross, rows, place.memory), layer.cross.out_bias))
    branches.append(("mlp", mlp_steps(layer.mlp, rows), _down_bias(layer.mlp)))
    steps: list[Step] = []
    for name, branch, bias in branches:
        if layer.order in BEFORE:
            steps.append(norm_step(f"{name}_norm", layer.norm, rows))
        steps += branch
        if layer.order in AFTER:
            steps.append(norm_step(f"{name}_post_norm", layer.norm, rows))
        steps.append(residual(f"{name}_add", rows, dropout=layer.dropout, biases=int(bias)))
        if layer.order == "on_sum":
            steps.append(norm_step(f"{name}_norm", layer.norm, rows))
    return tuple(steps)


def _parallel(layer: Layer, rows: Rows) -> tuple[Step, ...]:
    """Return both branches side by side: their partial results are summed before they leave the tensor-parallel region, once.

    Source: Wang and Komatsuzaki, GPT-J; Chowdhery et al., PaLM, arXiv:2204.02311, section 2.
    """
    attention, mlp = attention_steps("attention", layer.attention, rows), mlp_steps(layer.mlp, rows)
    biases = int(layer.attention.out_bias) + int(_down_bias(layer.mlp))
    add = Streaming(
        name="branch_add", elements=rows.elements, split="none", pattern="bias_dropout_add", fused=BRANCH_ADD, unfused=BRANCH_ADD
    )
    apart = layer.order == "parallel_apart"
    between = (norm_step("mlp_norm", layer.norm, rows), mlp[0]) if apart else ()
    inner = mlp[1:-1] if apart else tuple(_reading_the_same(step) for step in mlp[1:-1])
    return (
        norm_step("attention_norm", layer.norm, rows), *attention[:-1], *between, *inner, add, mlp[-1],
        residual("add", rows, dropout=layer.dropout, biases=biases),
    )  # fmt: skip


def _reading_the_same(step: Step) -> Step:
    """Return the up-projection without its saved input: the attention keeps the same norm's result."""
    return replace(step, saves_input=False) if isinstance(step, Linear) and step.name == "mlp_up" else step


def _down_bias(mlp: Mlp | Experts) -> bool:
    return isinstance(mlp, Mlp) and mlp.down_bias


def _without_parameters(step: Step) -> Step:
    """Return a step whose weights another one holds; their gradient is still made here."""
    if isinstance(step, Linear):
        return replace(step, shared=True)
    return replace(step, parameters=0) if isinstance(step, Streaming) else step


