"""Traces a module twice and makes a model of what both runs did; see `foretrain.models.trace`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import gcd
from typing import Any

import torch

from foretrain.errors import ModelError
from foretrain.models.model import Block, Model
from foretrain.models.trace_build import Builder
from foretrain.models.trace_cuts import Cuts, Segment, cut, storage_of
from foretrain.models.trace_run import Run, borrowed, leading, run_module, tensors_of, with_samples
from foretrain.models.trace_shapes import Shapes
from foretrain.models.trace_tensor import head_cut, stem_cut, tensor_cut


def trace_module(
    module: torch.nn.Module, example_inputs: Any, *, loss: Callable[[Any], Any] | None, name: str | None, item: str | None,
    autocast: str | None = None,
) -> Model:  # fmt: skip
    """Return the model that a module is: what `from_module` says, and raises."""
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{module!r:.100} is no torch.nn.Module; give one, such as torch.nn.Linear(8, 8)")
    label = name or type(module).__name__
    if not any(True for _ in module.parameters()):
        raise ModelError(f"{label} has no parameters, so there is nothing to train")
    inputs = [example_inputs] if isinstance(example_inputs, torch.Tensor) else list(example_inputs)
    own = leading(inputs)
    samples = max(2, own)  # one sample alone would look like a dimension to be broadcast
    seq_len, image_size = _sizes(inputs, item)
    with borrowed(module):
        # What a module works out once and keeps, it works out in its first run only; what it makes of no tensor at all, it makes with
        # values where it is small, which may differ from batch to batch. Neither happens the second time.
        for shapes in (Shapes(), Shapes(largest_constant=0)):
            first, second = (
                run_module(module, with_samples(inputs, own, count), count, loss, shapes, autocast) for count in (samples, 2 * samples)
            )
            unlike = _unlike(label, first, second)
            if not unlike:
                break
        else:
            raise ModelError(unlike)
        return replace(_model(module, label, first, second, seq_len, image_size), autocast=autocast)


def _model(  # a module, its two runs and what a sample is
    module: Any, label: str, first: Run, second: Run, seq_len: int | None, image_size: int | None
) -> Model:
    cuts = cut(module, first)
    _share_out(first, cuts)
    _share_out(second, cuts)
    builder = Builder(first, second)
    blocks = [_block(builder, segment, first, second, last=segment is cuts.epilogue) for segment in cuts.segments]
    blocks, dims, reason = _tensor(builder, cuts, blocks, first)
    uncut = {kind: why for kind, why in (("pipeline", cuts.reason), ("tensor", reason)) if why}
    unused = builder.unused()
    if unused:
        blocks[-1] = replace(blocks[-1], steps=(*blocks[-1].steps, *unused))
    blocks = [replace(block, buffer_bytes=found) for block, found in zip(blocks, _buffers(module, cuts), strict=True)]
    before, after = int(cuts.prologue is not None), int(cuts.epilogue is not None)
    layers = blocks[before : len(blocks) - after]
    return Model(
        name=label, key=label.lower(), seq_len=seq_len, image_size=image_size, prologue=tuple(blocks[:before]), layers=folded(layers),
        epilogue=tuple(blocks[len(blocks) - after :]), tied_parameters=builder.owners.tied, tensor_dims=dims, uncut=uncut,
    )  # fmt: skip


def _tensor(builder: Builder, cuts: Cuts, blocks: list[Block], run: Run) -> tuple[list[Block], dict[str, int], str]:
    """Return the blocks as tensor parallelism cuts them and what it must divide; or as they are, and why it cannot."""
    found, dims = list[Block](), dict[str, int]()
    for segment, block in zip(cuts.segments, blocks, strict=True):
        if segment is cuts.prologue or segment is cuts.epilogue:
            found.append(replace(block, steps=(head_cut if segment is cuts.epilogue else stem_cut)(block.steps)))
            continue
        cut_up = tensor_cut(tuple(block.ops), builder.sources, run.recorder.records[segment.first : segment.last])
        if cut_up.reason:
            return blocks, {}, f"{block.name}: {cut_up.reason}" if block.name != "model" else cut_up.reason
        for name, size in cut_up.dims.items():
            dims[name] = gcd(dims.get(name, 0), size)
        found.append(replace(block, steps=cut_up.steps))
    return found, dims, ""


def folded(blocks: Sequence[Block]) -> tuple[tuple[Block, int], ...]:
    """Return runs of equal neighbours as one block and a count; equal blocks are one object, named after the first."""
    found: list[tuple[Block, int]] = []
    known: dict[tuple[object, ...], Block] = {}
    for one in blocks:
        block = known.setdefault((one.steps, one.input_elements, one.buffer_bytes), one)
        if found and found[-1][0] is block:
            found[-1] = (block, found[-1][1] + 1)
        else:
            found.append((block, 1))
    return tuple(found)


def _block(builder: Builder, segment: Segment, first: Run, second: Run, *, last: bool) -> Block:
    total = len(first.recorder.records)
    name = segment.root or ("model" if segment.last - segment.first == total else "head" if last else "stem")
    entering = 0
    if segment.entering is not None:
        size = builder.fit.amount([storage_of(first, segment.entering)], [storage_of(second, segment.entering)], name)
        entering = int(size.elements)
    return Block(name=name, steps=builder.steps(segment, last=last), input_elements=entering)


def _buffers(module: Any, cuts: Cuts) -> list[tuple[tuple[str, int], ...]]:
    """Return the bytes of the buffers of each segment by dtype; what belongs to no module of a segment's own is the first's."""
    found: list[dict[str, int]] = [{} for _ in cuts.segments]
    for name, one in module.named_buffers():
        place = next((number for number, segment in enumerate(cuts.segments) if segment.root and name.startswith(f"{segment.root}.")), 0)
        dtype = str(one.dtype).removeprefix("torch.")
        found[place][dtype] = found[place].get(dtype, 0) + one.numel() * one.element_size()
    return [tuple(sizes.items()) for sizes in found]


def _share_out(run: Run, cuts: Cuts) -> None:
    """Give what several blocks keep to the block that made it, which keeps it once for all of them."""
    homes = [(segment.first, number) for number, segment in enumerate(cuts.segments)]

    def home(record: int) -> int:
        return max(number for first, number in homes if first <= record)

    made = {one.storage: record for record in reversed(run.recorder.records) for one in record.writes if record.kind != "view"}
    for storage, savers in run.recorder.savers.items():
        if len(savers) < 2 or storage not in made or len({home(one) for one in savers}) < 2:
            continue
        keeper = run.recorder.records[savers[0]]
        moved = [one for one in keeper.saved if one.storage == storage]
        keeper.saved = [one for one in keeper.saved if one.storage != storage]
        made[storage].saved += moved


def _unlike(label: str, first: Run, second: Run) -> str:
    """Return how two runs differ in what they do; empty where only their shapes do."""
    for one, two in zip(first.recorder.records, second.recorder.records, strict=False):
        if one.name != two.name or one.path != two.path or len(one.grads) != len(two.grads):
            where = f"{label}.{one.path}" if one.path else label
            return (
                f"{where} runs {one.name} for {first.samples} samples and {two.name} for {second.samples}; "
                "a module must do the same whatever the batch"
            )
    if len(first.recorder.records) != len(second.recorder.records):
        return f"{label} runs another number of ops for {second.samples} samples; a module must do the same whatever the batch"
    return ""


def _sizes(inputs: Sequence[Any], item: str | None) -> tuple[int | None, int | None]:
    """Return (sequence length, image size) of a sample, as far as it has them."""
    tensors = tensors_of(inputs)
    shape = tuple(tensors[0].shape)
    whole = all(not one.dtype.is_floating_point for one in tensors)
    guessed = "token" if whole and len(shape) == 2 else "image" if len(shape) == 4 and shape[2] == shape[3] else "sample"
    item = item or guessed
    if item not in ("token", "image", "sample"):
        raise ModelError(f"item {item!r} is none; training counts token, image or sample")
    fits = {"token": len(shape) > 1, "image": len(shape) == 4, "sample": True}[item]
    if not fits:
        raise ModelError(f"the first example input has shape {shape}, which is no batch of {item}s; give item='sample'")
    return (shape[1] if item == "token" else None), (shape[2] if item == "image" else None)
