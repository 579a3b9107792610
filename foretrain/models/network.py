"""Transformers of any common kind as models: layers that may differ, an encoder before a decoder, tokens or patches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from foretrain.errors import ModelError
from foretrain.models.end_blocks import head_block, input_block, patch_steps, patch_tokens, token_steps
from foretrain.models.ends import Head, PatchInput, TokenInput
from foretrain.models.experts import GroupedLinear
from foretrain.models.layers import Place, layer_block
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model, Step
from foretrain.models.parts import Attention, Experts, Layer
from foretrain.models.steps import Rows, norm_step, whole

LARGEST_SEQUENCE, LARGEST_IMAGE = 1_000_000_000, 100_000
Layers = tuple[tuple[Layer, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """What follows an encoder: its own input and layers; `tokens` of its sequence (None: as many as the encoder's)."""

    source: TokenInput
    layers: Layers
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A transformer of `hidden` width: an input, layers in order, a head; `size` is its tokens, or pixels a side of its images.

    Raises:
        ModelError: for a size that no sample has.
    """

    name: str
    key: str
    hidden: int
    size: int
    source: TokenInput | PatchInput
    layers: Layers
    head: Head
    decoder: Decoder | None = None
    further: int = 0
    """Modules after the last layer that each predict one token further, from the same table and logits."""
    undivided: str = ""
    """Why a pipeline cannot cut it; empty where it can."""
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse samples of no size, images smaller than a patch, and absurd ones."""
        if isinstance(self.source, PatchInput):
            name, least, most = "image_size", self.source.patch, LARGEST_IMAGE
        else:
            name, least, most = "seq_len", 1, LARGEST_SEQUENCE
        if isinstance(self.size, bool) or not isinstance(self.size, int):
            raise ModelError(f"{self.name}: {name} {self.size!r} is no whole number; give one from {least} to {most:,}")
        if not least <= self.size <= most:
            raise ModelError(f"{self.name}: {name} {self.size:,} is out of range; give a whole number from {least} to {most:,}")

    @property
    def tokens(self) -> int:
        """Rows that the first layers see."""
        return self.size if isinstance(self.source, TokenInput) else patch_tokens(self.source, self.size)


def runs(layers: Iterable[Layer]) -> Layers:
    """Return layers in order as runs of equal ones."""
    return tuple((layer, len(list(same))) for layer, same in groupby(layers))


def build(network: Network) -> Model:
    """Return the model that a network defines; `rebuild` makes it again for samples of another size."""
    rows = Rows(tokens=network.tokens, width=network.hidden)
    target = _target(network, rows)
    layers = (*_blocks(network.layers, Place(rows=rows, carried=target.elements if target else 0)), *_decoder_blocks(network, rows, target))
    model = Model(
        name=network.name,
        key=network.key or network.name,
        seq_len=network.size if isinstance(network.source, TokenInput) else None,
        image_size=network.size if isinstance(network.source, PatchInput) else None,
        hidden=network.hidden,
        prologue=(input_block(_input_steps(network, target)),),
        layers=layers,
        epilogue=(head_block(network.head, target or rows), *_further_blocks(network, rows)),
        tied_parameters=_tied(network),
        tensor_dims=_tensor_dims(network),
        rebuild=partial(_at_size, network),
        uncut={"pipeline": network.undivided} if network.undivided else {},
        assumed=network.assumed,
    )
    idle = sum(step.idle_parameters * count for block, count in model.blocks() for step in block.steps if isinstance(step, GroupedLinear))
    return replace(model, active_parameters=model.parameters - idle) if idle else model


def _at_size(network: Network, size: int) -> Model:
    return build(replace(network, size=size))


def _target(network: Network, rows: Rows) -> Rows | None:
    """Return the rows of the decoder beside an encoder."""
    if network.decoder is None:
        return None
    return Rows(tokens=network.decoder.tokens or rows.tokens, width=network.hidden)


def _blocks(layers: Layers, place: Place) -> tuple[tuple[Block, int], ...]:
    """Return the layers' blocks; equal layers are one object, which is priced once."""
    made = {layer: layer_block(layer, place) for layer in dict.fromkeys(layer for layer, _ in layers)}
    return tuple((made[layer], count) for layer, count in layers)


def _decoder_blocks(network: Network, rows: Rows, target: Rows | None) -> tuple[tuple[Block, int], ...]:
    """Return the layers of a decoder; the encoder's outputs travel on beside its own rows."""
    if network.decoder is None or target is None:
        return ()
    return _blocks(network.decoder.layers, Place(rows=target, memory=rows, carried=rows.elements))


def _input_steps(network: Network, target: Rows | None) -> tuple[Step, ...]:
    if isinstance(network.source, PatchInput):
        return patch_steps(network.source, network.size)
    steps = token_steps(network.source, network.tokens, network.hidden)
    if network.decoder is None or target is None:
        return steps
    return (*steps, *token_steps(network.decoder.source, target.tokens, network.hidden, "decoder_"))


def _further_blocks(network: Network, rows: Rows) -> tuple[Block, ...]:
    """Return the modules that predict further tokens: each joins the next token's embedding to the rows and runs one more layer.

    **Source:** DeepSeek-AI, DeepSeek-V3, arXiv:2412.19437, section 2.2.
    """
    if not network.further or not isinstance(network.source, TokenInput):
        return ()
    layer = network.layers[-1][0]
    embedding = token_steps(replace(network.source, shared=True), rows.tokens, network.hidden, "further_")
    joined = Rows(tokens=rows.tokens, width=2 * rows.width)
    steps = (
        *embedding,
        norm_step("further_embedding_norm", layer.norm, rows),
        norm_step("further_rows_norm", layer.norm, rows),
        whole("further_projection", joined, rows.width, bias=False),
        *layer_block(layer, Place(rows=rows)).steps,
        *(replace(step, shared=True) if isinstance(step, Linear) else step for step in head_block(network.head, rows).steps),
    )
    return (Block(name="further", steps=steps, input_elements=rows.elements),) * network.further


def _tied(network: Network) -> int:
    """Return the parameters of the table that the head uses as well."""
    if not network.head.tied or not isinstance(network.source, TokenInput):
        return 0
    own = network.decoder is not None and not network.decoder.source.shared
    table = network.decoder.source if network.decoder is not None and own else network.source
    return table.vocab * table.width


def _tensor_dims(network: Network) -> Mapping[str, int]:
    """Return what tensor parallelism must divide; of layers that differ, each size under its own name."""
    layers = [layer for layer, _ in (*network.layers, *(network.decoder.layers if network.decoder else ()))]
    found: dict[str, int] = {}
    for layer in layers:
        for attention in (layer.attention, *((layer.cross,) if layer.cross else ())):
            _add(found, "attention heads", attention.heads)
            _add(found, "key-value heads", _key_heads(attention))
        for name, width in _widths(layer).items():
            _add(found, name, width)
    return found


def _key_heads(attention: Attention) -> int:
    return attention.heads if attention.latent is not None else attention.kv_heads


def _widths(layer: Layer) -> dict[str, int]:
    if not isinstance(layer.mlp, Experts):
        return {"MLP width": layer.mlp.width}
    shared = {"shared experts' width": layer.mlp.shared.width} if layer.mlp.shared is not None else {}
    return {"experts' width": layer.mlp.mlp.width, **shared}


def _add(found: dict[str, int], name: str, size: int) -> None:
    """Add a size under its name, numbered where another layer has another of that name."""
    number = 1
    while (key := name if number == 1 else f"{name} ({number})") in found and found[key] != size:
        number += 1
    found[key] = size
