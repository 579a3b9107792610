"""What the profile of a traced model may say, as pydantic reads it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt

from foretrain.errors import ModelError
from foretrain.models.schema import ArchitectureFile
from foretrain.models.traced import Traced, blocks_of

Index = Annotated[StrictInt, Field(ge=0)]
Size = Annotated[StrictInt, Field(gt=0, le=10**9)]
Count = Annotated[StrictInt, Field(ge=0, le=10**15)]


class TracedFile(ArchitectureFile):
    """Blocks op by op, and their order: `prologue` and `epilogue` are numbers of blocks, `layers` pairs of one and how often it runs."""

    blocks: list[Any]
    prologue: tuple[Index, ...] = ()
    layers: list[list[Index]]
    epilogue: tuple[Index, ...] = ()
    tied_parameters: Count = 0
    tensor_dims: dict[str, Size] = Field(default_factory=dict)
    seq_len: Size | None = None
    image_size: Size | None = None
    hidden: Size | None = None
    uncut: dict[str, str] = Field(default_factory=dict)
    autocast: Literal["bf16", "fp16"] | None = None

    def spec(self, key: str) -> Traced:
        """Return what the profile says, its ops read.

        Raises:
            ModelError: where an op is wrong or a block is missing.
        """
        blocks = blocks_of(self.blocks)
        for pair in self.layers:
            if len(pair) != 2 or not 1 <= pair[1] <= 1_000_000:
                raise ModelError(f"layers: {pair!r:.60} is no pair of a block's number and a count from 1")
        numbers = [*self.prologue, *(pair[0] for pair in self.layers), *self.epilogue]
        wrong = next((one for one in numbers if one >= len(blocks)), None)
        if wrong is not None or not self.layers:
            why = f"block {wrong} is none of the {len(blocks)} blocks, counted from 0" if self.layers else "layers: there are none"
            raise ModelError(why)
        return Traced(
            name=self.name, key=key, blocks=blocks, prologue=self.prologue, layers=tuple((a, b) for a, b in self.layers),
            epilogue=self.epilogue, tied_parameters=self.tied_parameters, tensor_dims=self.tensor_dims, seq_len=self.seq_len,
            image_size=self.image_size, hidden=self.hidden, uncut=self.uncut, assumed=self.assumed, autocast=self.autocast,
        )  # fmt: skip
