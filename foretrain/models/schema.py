"""What a model's profile may say, as pydantic reads it. Only `load` imports this module, when a profile is read."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, StrictBool, ValidationInfo, model_validator

from foretrain.errors import nearest
from foretrain.inherit import Figure
from foretrain.models.architectures import DEFAULT
from foretrain.models.dimensions import Transformer, fault_of
from foretrain.quantity import ProfileFile, Strict


def _checked(given: Any, info: ValidationInfo) -> Any:
    if isinstance(given, Figure):
        raise ValueError(f"{given.value!r} needs no source of its own; write the bare value, and `source: KEY` once for all dimensions")
    fault = fault_of(str(info.field_name), given)
    if fault:
        raise ValueError(fault)
    return given


Size = Annotated[int, BeforeValidator(_checked), Field(gt=0)]
Word = Annotated[str, BeforeValidator(_checked)]


class Published(Strict):
    """The parameter count that the makers state, and how far it is rounded (relative)."""

    parameters: int = Field(gt=0, strict=True)
    within: float = Field(default=1e-3, gt=0, lt=1)
    source: str


class ArchitectureFile(ProfileFile):
    """What every model's profile has. Dimensions are whole numbers; `source` says where they all come from."""

    architecture: str = DEFAULT
    source: str = ""
    published: Published | None = None
    assumed: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _sources_are_declared(self) -> Self:
        for key in (self.source, self.published.source if self.published else ""):
            if key and key not in self.sources:
                known = nearest(key, self.sources) or f"; use one of {', '.join(self.sources) or 'its keys, once it has some'}"
                raise ValueError(f"source {key!r} is not in the table `sources`{known}")
        return self


class ModelFile(ArchitectureFile):
    """A decoder transformer."""

    layers: Size
    hidden: Size
    heads: Size
    vocab: Size
    seq_len: Size
    ffn_hidden: Size | None = None
    kv_heads: Size | None = None
    head_dim: Size | None = None
    positions: Word
    max_positions: Size | None = None
    norm: Word
    embedding_norm: StrictBool = False
    activation: Word
    gated: StrictBool
    bias: StrictBool
    tied: StrictBool
    dropout: StrictBool
    causal: StrictBool = True
    window: Size | None = None
    vocab_padded_to: Size = 1

    def spec(self, key: str) -> Transformer:
        """Return the dimensions as the builder takes them.

        Raises:
            ModelError: where they do not go together.
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields if name in Transformer.__slots__}
        return Transformer(**{**fields, "key": key})
