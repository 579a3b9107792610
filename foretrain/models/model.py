"""A model: blocks of ops in order, with parameters, at one size of its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from foretrain.errors import ModelError
from foretrain.models.ops import Boundary, Layout, Op
from foretrain.models.patterns import FUSION_PATTERNS
from foretrain.models.still import Still

Step = Op | Boundary


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A sequence of ops that repeats. `input_elements` per sample is what a pipeline sends to it and full recomputation keeps of it.

    `buffer_bytes` are those of tensors that are no parameters, such as running statistics, by dtype.
    """

    name: str
    steps: tuple[Step, ...]
    input_elements: int
    buffer_bytes: tuple[tuple[str, int], ...] = ()

    @property
    def ops(self) -> Iterator[Op]:
        """Ops without the tensor-parallel boundaries."""
        return (step for step in self.steps if not isinstance(step, Boundary))

    @property
    def parameters(self) -> int:
        """Parameters of one copy of the block."""
        return sum(op.parameters for op in self.ops)

    @property
    def trained_parameters(self) -> int:
        """Those of them that are not frozen."""
        return sum(op.parameters for op in self.ops if op.trained)

    @property
    def still(self) -> bool:
        """Whether it has no backward pass: nothing in it or before it is trained."""
        return all(isinstance(op, Still) for op in self.ops)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a model asks for. `layers` are what a pipeline cuts; `prologue` stays on the first stage, `epilogue` on the last.

    `tied_parameters` counts the parameters that the epilogue shares with the prologue (tied embedding): counted once in
    `parameters`, held by both end stages of a pipeline. `tensor_dims` names what tensor parallelism must divide. A sample is a sequence
    of `seq_len` tokens, an image of `image_size` pixels a side, or, where both are None, a thing without a size. `rebuild` makes the
    model again for another size. `tied_trained` is off where the shared ones are frozen.
    """

    name: str
    key: str
    seq_len: int | None
    prologue: tuple[Block, ...]
    layers: tuple[tuple[Block, int], ...]
    epilogue: tuple[Block, ...]
    tied_parameters: int
    tensor_dims: Mapping[str, int]
    hidden: int | None = None
    image_size: int | None = None
    rebuild: Callable[[int], Model] | None = None
    active_parameters: int | None = None
    tied_trained: bool = True
    assumed: tuple[str, ...] = ()
    uncut: Mapping[str, str] = field(default_factory=dict)
    """Why it cannot be cut: by `pipeline` or by `tensor`; empty where it can, or the reason is evident."""
    autocast: str | None = None
    """The precision under whose automatic casts it was traced: what it moves holds for that alone."""

    @property
    def depth(self) -> int:
        """Layers that a pipeline can cut."""
        return sum(count for _, count in self.layers)

    @property
    def parameters(self) -> int:
        """All parameters, tied ones once."""
        ends = sum(block.parameters for block in (*self.prologue, *self.epilogue))
        return ends + sum(block.parameters * count for block, count in self.layers) - self.tied_parameters

    @property
    def trained_parameters(self) -> int:
        """Parameters that are not frozen, tied ones once."""
        total = sum(block.trained_parameters * count for block, count in self.blocks())
        return total - (self.tied_parameters if self.tied_trained else 0)

    @property
    def item(self) -> str:
        """What training is counted in: token, image or sample."""
        return "token" if self.seq_len is not None else "sample" if self.image_size is None else "image"

    @property
    def items_per_sample(self) -> int:
        """Tokens of a sequence; 1 where a sample is one thing."""
        return 1 if self.seq_len is None else self.seq_len

    def blocks(self) -> Iterator[tuple[Block, int]]:
        """Yield every block with its count, first to last."""
        yield from ((block, 1) for block in self.prologue)
        yield from self.layers
        yield from ((block, 1) for block in self.epilogue)

    def flop_per_sample(self) -> float:
        """Return forward + backward model FLOPs of one sample; causal attention counted in full, no recomputation.

        Source: Chowdhery et al., PaLM, arXiv:2204.02311, appendix B.
        """
        layout = Layout(micro_batch=1)
        return sum(
            count * kernel.model_flop
            for block, count in self.blocks()
            for op in block.ops
            for kernel in (*op.forward(layout), *op.backward(layout))
        )

    def activation_bytes_per_sample(self, element_bytes: float = 2.0) -> float:
        """Return the bytes that one sample saves for backward on one device, nothing recomputed, attention unfused, the rest fused."""
        layout = Layout(micro_batch=1, element_bytes=element_bytes, fused=FUSION_PATTERNS)
        return sum(count * op.saved_bytes(layout) for block, count in self.blocks() for op in block.ops)

    def frozen(self, *names: str) -> Model:
        """Return the model with some blocks frozen: `embedding`, `layers`, `head`, or a block's own name.

        Raises:
            ModelError: for an unknown name, or where nothing would be left to train.
        """
        from foretrain.models.tuning import frozen  # noqa: PLC0415  # tuning takes models apart, and so imports this module

        return frozen(self, names)

    def with_lora(self, rank: int, targets: Iterable[str] = ("all-linear",)) -> Model:
        """Return the model frozen, with adapters of `rank` beside the products that `targets` name.

        Raises:
            ModelError: for a rank that is none, or a target that no product has.
        """
        from foretrain.models.tuning import with_lora  # noqa: PLC0415  # as above

        return with_lora(self, rank, targets)

    def at_sequence(self, seq_len: int | None) -> Model:
        """Return the same model at another sequence length; None means its own.

        Raises:
            ModelError: where its samples are no sequences, or it was made for one length only.
        """
        if seq_len is not None and self.seq_len is None:
            raise ModelError(f"{self.name} trains on {self.item}s, which have no sequence length; leave {seq_len} out")
        return self._resized(seq_len, self.seq_len, "sequences of {} tokens")

    def at_image(self, image_size: int | None) -> Model:
        """Return the same model for square images of another size; None means its own.

        Raises:
            ModelError: where its samples are no images, or it was made for one size only.
        """
        if image_size is not None and self.image_size is None:
            raise ModelError(f"{self.name} trains on {self.item}s, which have no image size; leave {image_size} out")
        return self._resized(image_size, self.image_size, "images of {} pixels a side")

    def _resized(self, wanted: int | None, own: int | None, what: str) -> Model:
        if wanted is None or wanted == own:
            return self
        if self.rebuild is None:
            raise ModelError(f"{self.name} was made for {what.format(own)}; it cannot be asked for {wanted}")
        return self.rebuild(wanted)
