"""One run of a module on shapes: forward, and backward to its parameters."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from foretrain.errors import ForetrainError, ModelError
from foretrain.models.trace_autocast import DTYPES, Autocast
from foretrain.models.trace_calls import Calls
from foretrain.models.trace_record import Recorder
from foretrain.models.trace_shapes import META, Shapes

LONGEST_SAID = 160
"""Characters of an error of the module that a message repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A parameter of the module."""

    name: str
    shape: tuple[int, ...]
    numel: int
    trained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run recorded, of how many samples."""

    samples: int
    recorder: Recorder
    weights: Mapping[int, Weight]
    """Parameters by their storage."""
    outputs: frozenset[int]


def run_module(
    module: Any, inputs: Any, samples: int, loss: Callable[[Any], Any] | None, shapes: Shapes, autocast: str | None = None
) -> Run:
    """Return the record of one forward and backward pass of `samples` samples, under autocast to a precision where one is named.

    Raises:
        ModelError: where the module fails on these inputs, with the innermost module that did.
    """
    state = _as_shapes(module)
    few = None if autocast is None else DTYPES[autocast]
    recorder = Recorder(module, few or compute_dtype(module), shapes)
    weights = _weights(module, state, recorder)
    for tensor in state.values():
        recorder.ignore(tensor)
    try:
        with recorder.watching(), Calls(recorder), contextlib.nullcontext() if few is None else Autocast(recorder, few):
            outputs = torch.func.functional_call(module, state, tuple(inputs)) if state else module(*inputs)
            outputs = outputs if loss is None else loss(outputs)
            recorder.finish_forward()
            _differentiate(module, state, targets(outputs))
    except Exception as error:
        raise _said(module, recorder, error, inputs) from error
    written = frozenset(recorder.storage(one) for one in pytree.tree_leaves(_plain(outputs)) if isinstance(one, torch.Tensor))
    return Run(samples=samples, recorder=recorder, weights=weights, outputs=written)


def compute_dtype(module: Any) -> Any:
    """Return the floating type of most of the parameters: what the recipe's precision stands for."""
    counts: dict[Any, int] = {}
    for one in module.parameters():
        if one.dtype.is_floating_point:
            counts[one.dtype] = counts.get(one.dtype, 0) + one.numel()
    return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)


def leading(inputs: Sequence[Any]) -> int:
    """Return the samples of example inputs: the leading dimension of the first tensor.

    Raises:
        ModelError: where there is no tensor with one.
    """
    tensors = tensors_of(inputs)
    if not tensors:
        raise ModelError("the example inputs hold no tensor with a dimension of samples; give one, such as torch.empty(2, 3, 64, 64)")
    samples: int = tensors[0].shape[0]
    if not samples:
        raise ModelError(f"the first example input has shape {tuple(tensors[0].shape)}, which is no sample; give at least one")
    return samples


def tensors_of(inputs: Sequence[Any]) -> list[Any]:
    """Return the tensors among inputs that have a leading dimension."""
    return [one for one in pytree.tree_leaves(list(inputs)) if isinstance(one, torch.Tensor) and one.dim()]


def with_samples(inputs: Sequence[Any], own: int, samples: int) -> list[Any]:
    """Return the inputs as shapes of so many samples: every tensor whose leading dimension counts the samples is resized."""

    def sized(one: Any) -> Any:
        if not isinstance(one, torch.Tensor):
            return one
        shape = (samples, *one.shape[1:]) if one.dim() and one.shape[0] == own else one.shape
        return torch.empty(shape, dtype=one.dtype, device=META)

    resized: list[Any] = pytree.tree_map(sized, list(inputs))
    return resized


def targets(outputs: Any) -> list[Any]:
    """Return what is differentiated: the loss where the outputs name one, else every output that has a gradient."""
    own = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    found = [own] if isinstance(own, torch.Tensor) else pytree.tree_leaves(_plain(outputs))
    return [one for one in found if isinstance(one, torch.Tensor) and one.requires_grad]


@contextlib.contextmanager
def borrowed(module: Any) -> Iterator[None]:
    """Put a module in evaluation into training, and leave all its modules afterwards as they were: what they note belongs to a trace."""
    before = [(one, dict(one.__dict__)) for one in module.modules()]
    collecting = gc.isenabled()
    # A trace makes many small objects that all stay; looking through them for garbage again and again would take half its time.
    gc.disable()
    if not module.training:
        module.train()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        for one, attributes in before:
            one.__dict__.clear()
            one.__dict__.update(attributes)


def _plain(outputs: Any) -> Any:
    return list(outputs.values()) if isinstance(outputs, Mapping) else outputs


def _as_shapes(module: Any) -> dict[str, Any]:
    """Return parameters and buffers without their data, shared ones once; none where the module has no data anyway."""
    own = [*module.named_parameters(), *module.named_buffers()]
    if all(tensor.device.type == "meta" for _, tensor in own):
        return {}
    return {name: _shape_of(tensor) for name, tensor in own}


def _shape_of(tensor: Any) -> Any:
    shape = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
    if not isinstance(tensor, torch.nn.Parameter):
        return shape
    return torch.nn.Parameter(shape, requires_grad=tensor.requires_grad)


def _weights(module: Any, state: Mapping[str, Any], recorder: Recorder) -> dict[int, Weight]:
    for _, one in module.named_buffers():
        recorder.ignore(one)
    return {
        recorder.ignore(state.get(name, one)): Weight(name=name, shape=tuple(one.shape), numel=one.numel(), trained=one.requires_grad)
        for name, one in module.named_parameters()
    }


def _differentiate(module: Any, state: Mapping[str, Any], found: Sequence[Any]) -> None:
    wanted = [state.get(name, one) for name, one in module.named_parameters() if one.requires_grad]
    if not found:
        raise ModelError(
            "no output has a gradient: the module's results do not depend on a trained parameter; return what is trained on, or give a loss"
        )
    seeds = [torch.empty_like(one) for one in found]
    torch.autograd.grad(found, wanted, seeds, allow_unused=True)


def _said(module: Any, recorder: Recorder, error: Exception, inputs: Any) -> ModelError:
    """Return what failed, and where: the innermost module that was running."""
    kind = type(module).__name__
    place = f"{kind}.{recorder.path}" if recorder.path else kind
    during = "in backward" if recorder.backward and not isinstance(error, ForetrainError) else ""
    text = " ".join(str(error).split())
    text = text if len(text) <= LONGEST_SAID or isinstance(error, ForetrainError) else text[:LONGEST_SAID] + "…"
    if isinstance(error, ForetrainError):
        return ModelError(f"{place}: {text}" if recorder.path else f"{kind}: {text}")
    if "meta" in text and isinstance(error, (NotImplementedError, RuntimeError)):
        text += "; a trace has shapes only, no values"
    given = ", ".join("×".join(map(str, one.shape)) for one in pytree.tree_leaves(inputs) if isinstance(one, torch.Tensor))
    return ModelError(f"{place} failed {during or 'in forward'} on inputs of {given}: {type(error).__name__}: {text}")


