"""Small steps that every part of a transformer is made of: norms, products, sums with the residual stream."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.models.matmul import Linear
from foretrain.models.ops import Boundary
from foretrain.models.parts import Mlp, Norm
from foretrain.models.patterns import activation_traffic, norm_traffic, residual_traffic
from foretrain.models.stream import Split, Streaming


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A stream of activations: tokens of a sample, and how wide each is."""

    tokens: int
    width: int

    @property
    def elements(self) -> int:
        """Numbers of one sample."""
        return self.tokens * self.width


def boundary(name: str, kind: str, rows: Rows) -> Boundary:
    """Return where the rows enter or leave a tensor-parallel region."""
    return Boundary(name=name, kind=kind, elements=rows.elements)


def column(name: str, rows: Rows, width: int, *, bias: bool, parts: tuple[tuple[str, int], ...] = (), keeps: bool = False) -> Linear:
    """Return a product whose outputs are cut over ranks; `keeps` where attention reads its result again."""
    return Linear(
        name=name, tokens=rows.tokens, in_features=rows.width, out_features=width, bias=bias, cut="column", saves_output=keeps, parts=parts
    )


def row(name: str, rows: Rows, width: int, *, part: str = "") -> Linear:
    """Return a product from `width` inputs, cut over ranks, back to the rows.

    Its bias is added after the ranks' partial results are summed, with the residual, and is whole on every rank.
    """
    parts = ((part, rows.width),) if part else ()
    return Linear(name=name, tokens=rows.tokens, in_features=width, out_features=rows.width, bias=False, cut="row", parts=parts)


def whole(name: str, rows: Rows, width: int, *, bias: bool, parts: tuple[tuple[str, int], ...] = ()) -> Linear:
    """Return a product that tensor parallelism leaves whole."""
    return Linear(name=name, tokens=rows.tokens, in_features=rows.width, out_features=width, bias=bias, cut="none", parts=parts)


def norm_step(name: str, norm: Norm, rows: Rows, *, split: Split = "sequence", parameters: int | None = None) -> Streaming:
    """Return a norm of the rows, with the weights of one row unless `parameters` says how many."""
    fused, unfused = norm_traffic(norm.kind)
    count = norm.parameters(rows.width) if parameters is None else parameters
    if not count:
        fused, unfused = fused.frozen(), unfused.frozen()
    return Streaming(
        name=name, elements=rows.elements, split=split, pattern="norm", fused=fused, unfused=unfused, parameters=count,
        parameters_cut=split == "tensor" and parameters is not None,
    )  # fmt: skip


def residual(name: str, rows: Rows, *, dropout: bool, biases: int = 0) -> Streaming:
    """Return the sum of a branch with the residual stream, dropout and the biases of the products before it included."""
    fused, unfused = residual_traffic(dropout=dropout)
    if biases:
        fused, unfused = fused.with_bias_gradient(biases), unfused.with_bias_gradient(biases)
    return Streaming(
        name=name, elements=rows.elements, split="sequence", pattern="bias_dropout_add", fused=fused, unfused=unfused,
        mask_bytes=1.0 if dropout else 0.0, parameters=rows.width * biases,
    )  # fmt: skip


def activation(name: str, mlp: Mlp, tokens: int, *, copies: int = 1, split: Split = "tensor") -> Streaming:
    """Return the activation of an MLP over `tokens` rows, with the bias of the product before it; `copies` have biases of their own."""
    fused, unfused = activation_traffic(mlp.activation, gated=mlp.gated)
    biases = 2 if mlp.gated else 1
    if mlp.up_bias:
        fused, unfused = fused.with_bias_gradient(biases), unfused.with_bias_gradient(biases)
    return Streaming(
        name=name, elements=tokens * mlp.width, split=split, pattern="swiglu" if mlp.gated else "bias_gelu", fused=fused, unfused=unfused,
        parameters=copies * biases * mlp.width if mlp.up_bias else 0, parameters_cut=split == "tensor",
    )  # fmt: skip
