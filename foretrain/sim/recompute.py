"""Which steps of a layer run again in backward instead of keeping their activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foretrain.models.matmul import Linear
from foretrain.models.model import Step
from foretrain.models.ops import Boundary, Op

CORE = "core_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputation:
    """`again` names the steps that run again; `keeps_input` says that the layer's input is kept for them."""

    again: Callable[[Sequence[Step]], tuple[Step, ...]]
    keeps_input: bool


def _core(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple(step for step in steps if isinstance(step, Op) and step.group == CORE)


def _alternate(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return all but attention and every other product: torchtitan's per-op policy saves the first product of each pair."""
    result: list[Step] = []
    products = 0
    for step in steps:
        if isinstance(step, Linear):
            products += 1
            if products % 2:
                continue
        if isinstance(step, Boundary) or step.group != CORE:
            result.append(step)
    return tuple(result)


def _all_but_products(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple(step for step in steps if isinstance(step, Op) and not isinstance(step, Linear))


NOTHING_AGAIN = Recomputation(again=lambda _steps: (), keeps_input=False)
_FULL = Recomputation(again=tuple, keeps_input=True)
_SELECTIVE = {
    "core_attention": Recomputation(again=_core, keeps_input=False),
    "alternate_products": Recomputation(again=_alternate, keeps_input=True),
    "all_but_products": Recomputation(again=_all_but_products, keeps_input=True),
}


def recomputation(recompute: str, selective: str) -> Recomputation:
    """Return the policy of a plan's `recompute` under a software's meaning of `selective`.

    **Source:** Chen et al., arXiv:1604.06174 (full); Korthikanti et al., arXiv:2205.05198, section 5 (core attention).
    """
    return {"none": NOTHING_AGAIN, "full": _FULL}.get(recompute) or _SELECTIVE[selective]
