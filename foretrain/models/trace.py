"""A model from any `torch.nn.Module`: forward, backward and optimizer step, worked out on shapes alone.

Needs torch (`foretrain[torch]`), but neither the memory of the module's weights nor an accelerator. torch is imported when the function
is called, so that its name costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from foretrain.errors import ModelError
from foretrain.models.model import Model

if TYPE_CHECKING:
    import torch


def from_module(
    module: torch.nn.Module,
    example_inputs: Any,
    *,
    loss: Callable[[Any], Any] | None = None,
    name: str | None = None,
    item: str | None = None,
    autocast: str | None = None,
) -> Model:
    """Return the model that a module is, traced on example inputs without running it.

    `example_inputs` is a tensor, or a sequence of what `forward` takes; the leading dimension of the first tensor counts samples, and so
    does that of every other tensor which has as many. `loss` turns the outputs into what is differentiated; without it, that is the
    output's own `loss`, else every output. `item` is what training counts, token, image or sample, and follows from the inputs where it
    is left out. `autocast` (bf16 or fp16) traces the casts of automatic mixed precision too, op by op; the model is then for recipes of
    that precision. Without it, a recipe's precision stands for the module's own. The module is traced as it is trained: one in evaluation
    is put into training for the while.

    Raises:
        ModelError: where torch is missing, the module fails on the inputs, looks at values, has no parameter or no output with a
            gradient, or multiplies matrices in a way that has no formula; the message names the innermost module.
    """
    try:
        from foretrain.models.trace_module import trace_module  # noqa: PLC0415  # brings torch
    except ImportError as error:
        raise ModelError(f"tracing a module needs torch ({error}); install it: pip install 'foretrain[torch]'") from error
    if autocast not in (None, "bf16", "fp16"):
        raise ModelError(f"autocast={autocast!r} is no precision that products are cast to; use bf16 or fp16, or leave it out")
    return trace_module(module, example_inputs, loss=loss, name=name, item=item, autocast=autocast)
