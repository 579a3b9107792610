"""The steps of an MLP or of a mixture of experts, from the rows that enter a tensor-parallel region to those that leave it."""

from __future__ import annotations

from foretrain.models.experts import GroupedLinear
from foretrain.models.model import Step
from foretrain.models.parts import Experts, Mlp
from foretrain.models.patterns import COMBINE, DISPATCH, GATE_ROWS, ROUTE
from foretrain.models.steps import Rows, activation, boundary, column, residual, row, whole
from foretrain.models.stream import Streaming, Traffic


def mlp_steps(dims: Mlp | Experts, rows: Rows) -> tuple[Step, ...]:
    """Return an MLP or experts; the first step enters a tensor-parallel region, the last leaves it."""
    inner = _experts(dims, rows) if isinstance(dims, Experts) else _dense("mlp", dims, rows)
    return (boundary("mlp.enter", "enter", rows), *inner, boundary("mlp.leave", "leave", rows))


def _dense(name: str, dims: Mlp, rows: Rows) -> tuple[Step, ...]:
    # A gate and the up-projection read the same input: one product with their outputs side by side. A bias after a plain activation's
    # product belongs to the activation, which is where fused kernels add it.
    default = ("gate_proj", "up_proj") if dims.gated else ("up_proj",)
    parts = dims.parts or default
    wide = dims.width * (2 if dims.gated else 1)
    shares = tuple((part, wide // len(parts)) for part in parts)
    inner = "activation" if name == "mlp" else f"{name}_activation"
    return (
        column(f"{name}_up", rows, wide, bias=False, parts=shares),
        activation(inner, dims, rows.tokens),
        row(f"{name}_down", rows, dims.width, part=dims.down),
    )


def _experts(dims: Experts, rows: Rows) -> tuple[Step, ...]:
    """Return router, dispatch, the experts' two products and their weighted sum, then the shared experts.

    All experts are on each rank, tensor parallelism cutting their width; tokens spread evenly over them.
    Source: Fedus et al., Switch Transformers, arXiv:2101.03961, section 2; Gale et al., MegaBlocks, arXiv:2211.15841, section 3.
    """
    routed = rows.tokens * dims.per_token
    mlp = dims.mlp
    wide = mlp.width * (2 if mlp.gated else 1)
    return (
        whole("router", rows, dims.count, bias=dims.router_bias),
        _stream("route", rows.tokens * dims.count, ROUTE),
        _stream("dispatch", routed * rows.width, DISPATCH),
        GroupedLinear(
            name="experts_up", tokens=rows.tokens, experts=dims.count, per_token=dims.per_token, in_features=rows.width,
            out_features=wide, bias=False, cut="column",
        ),
        activation("activation", mlp, routed, copies=dims.count),
        GroupedLinear(
            name="experts_down", tokens=rows.tokens, experts=dims.count, per_token=dims.per_token, in_features=mlp.width,
            out_features=rows.width, bias=mlp.down_bias, cut="row",
        ),
        _stream("combine", routed * rows.width, COMBINE),
        *_shared(dims, rows),
    )  # fmt: skip


def _shared(dims: Experts, rows: Rows) -> tuple[Step, ...]:
    if dims.shared is None:
        return ()
    gate = (whole("shared_gate", rows, 1, bias=False), _stream("shared_weight", rows.elements, GATE_ROWS)) if dims.shared_gate else ()
    add = residual("shared_add", rows, dropout=False, biases=int(dims.shared.down_bias))
    return (*_dense("shared", dims.shared, rows), *gate, add)


def _stream(name: str, elements: int, traffic: Traffic) -> Streaming:
    return Streaming(name=name, elements=elements, split="none", pattern="", fused=traffic, unfused=traffic)
