"""A traced model as a profile: blocks written out op by op, each once, and the order in which they run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foretrain.errors import ModelError, OutputError
from foretrain.models.model import Block, Model
from foretrain.models.opdata import LARGEST, step_data, step_of

ENDS = ("prologue", "epilogue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What the profile of a traced model says, read."""

    name: str
    key: str
    blocks: tuple[Block, ...]
    prologue: tuple[int, ...]
    layers: tuple[tuple[int, int], ...]
    epilogue: tuple[int, ...]
    tied_parameters: int
    tensor_dims: Mapping[str, int]
    seq_len: int | None
    image_size: int | None
    hidden: int | None
    uncut: Mapping[str, str]
    assumed: tuple[str, ...]
    autocast: str | None = None


def build(spec: Traced) -> Model:
    """Return the model that a profile describes."""
    return Model(
        name=spec.name, key=spec.key, seq_len=spec.seq_len, image_size=spec.image_size, hidden=spec.hidden,
        prologue=tuple(spec.blocks[one] for one in spec.prologue), epilogue=tuple(spec.blocks[one] for one in spec.epilogue),
        layers=tuple((spec.blocks[one], count) for one, count in spec.layers), tied_parameters=spec.tied_parameters,
        tensor_dims=spec.tensor_dims, uncut=spec.uncut, assumed=spec.assumed, autocast=spec.autocast,
    )  # fmt: skip


def model_data(model: Model) -> dict[str, Any]:
    """Return a model as the plain data of a profile.

    Raises:
        ModelError: for an op that a profile cannot hold.
    """
    blocks: list[Block] = []

    def number(block: Block) -> int:
        if block not in blocks:
            blocks.append(block)
        return blocks.index(block)

    order = {
        "prologue": [number(block) for block in model.prologue],
        "layers": [[number(block), count] for block, count in model.layers],
        "epilogue": [number(block) for block in model.epilogue],
    }
    words = {"tensor_dims": dict(model.tensor_dims), "uncut": dict(model.uncut), "assumed": list(model.assumed), "autocast": model.autocast}
    sizes = {"seq_len": model.seq_len, "image_size": model.image_size, "hidden": model.hidden, "tied_parameters": model.tied_parameters}
    return {
        "name": model.name, "architecture": "traced",
        **{key: value for key, value in {**sizes, **words}.items() if value}, **order,
        "blocks": [
            {
                "name": one.name, "input_elements": one.input_elements,
                **({"buffer_bytes": dict(one.buffer_bytes)} if one.buffer_bytes else {}), "ops": [step_data(step) for step in one.steps],
            }
            for one in blocks
        ],
    }  # fmt: skip


def save_model(model: Model, path: str | Path) -> None:
    """Write a model to a profile that `load_model` reads, as JSON where the name ends so and as YAML otherwise.

    Raises:
        ModelError: for an op that a profile cannot hold.
        OutputError: where the file cannot be written.
    """
    path = Path(path)
    data = model_data(model)
    as_json = path.suffix == ".json"
    text = json.dumps(data, indent=1) if as_json else yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=140)
    try:
        path.write_text(text.rstrip() + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give a place that you may write to") from error


def blocks_of(data: list[Any]) -> tuple[Block, ...]:
    """Return the blocks of a profile.

    Raises:
        ModelError: naming the block, the op and what is wrong with it.
    """
    found = []
    for one in data:
        if not isinstance(one, Mapping) or not isinstance(one.get("ops"), list) or not isinstance(one.get("name"), str):
            raise ModelError("a block has a `name` and a list of `ops`, and `input_elements` where a pipeline may be cut before it")
        entering = one.get("input_elements", 0)
        if not _whole(entering):
            raise ModelError(f"block {one['name']}: input_elements is {entering!r:.60}; give a whole number from 0")
        buffers = one.get("buffer_bytes", {})
        if not isinstance(buffers, Mapping) or not all(_whole(size) for size in buffers.values()):
            raise ModelError(f"block {one['name']}: buffer_bytes is {buffers!r:.60}; give whole numbers by dtype")
        try:
            steps = tuple(step_of(step) for step in one["ops"])
        except ModelError as error:
            raise ModelError(f"block {one['name']}: {error}") from None
        sizes = tuple((str(dtype), size) for dtype, size in buffers.items())
        found.append(Block(name=one["name"], steps=steps, input_elements=entering, buffer_bytes=sizes))
    return tuple(found)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST
