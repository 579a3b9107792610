"""A model: blocks of ops in order, with parameters, at one sequence length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from foretrain.errors import ModelError
from foretrain.models.ops import Boundary, Layout, Op
from foretrain.models.patterns import FUSION_PATTERNS

Step = Op | Boundary


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A sequence of ops that repeats. `input_elements` per sample is what full recomputation keeps of it."""

    name: str
    steps: tuple[Step, ...]
    input_elements: int

    @property
    def ops(self) -> Iterator[Op]:
        """Ops without the tensor-parallel boundaries."""
        return (step for step in self.steps if isinstance(step, Op))

    @property
    def parameters(self) -> int:
        """Parameters of one copy of the block."""
        return sum(op.parameters for op in self.ops)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a model asks for. `layers` are what a pipeline cuts; `prologue` stays on the first stage, `epilogue` on the last.

    `tied_parameters` counts the parameters that the epilogue shares with the prologue (tied embedding): counted once in
    `parameters`, held by both end stages of a pipeline. `tensor_dims` names what tensor parallelism must divide.
    """

    name: str
    key: str
    seq_len: int
    hidden: int
    prologue: tuple[Block, ...]
    layers: tuple[tuple[Block, int], ...]
    epilogue: tuple[Block, ...]
    tied_parameters: int
    tensor_dims: Mapping[str, int]
    rebuild: Callable[[int], Model] | None = None
    active_parameters: int | None = None
    assumed: tuple[str, ...] = ()

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
    def boundary_elements(self) -> int:
        """Activation elements per sample between two layers."""
        return self.seq_len * self.hidden

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

    def at_sequence(self, seq_len: int) -> Model:
        """Return the same model at another sequence length.

        Raises:
            ModelError: where the model was made for one length only.
        """
        if seq_len == self.seq_len:
            return self
        if self.rebuild is None:
            raise ModelError(f"{self.name} was made for sequences of {self.seq_len}; it cannot be asked for {seq_len}")
        return self.rebuild(seq_len)
