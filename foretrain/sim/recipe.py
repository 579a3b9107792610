"""What is trained, whatever the machine."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from foretrain.errors import RecipeError, nearest

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8", "fp8-delayed", "fp8-tensorwise", "fp8-rowwise", "fp8-block", "mxfp8", "nvfp4")
LARGEST_BATCH = 10**9
LARGEST_IMAGE = 100_000
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Batch in samples, sequence length in tokens, image size in pixels a side (None: the model's own), precision and optimizer by name."""

    global_batch: int
    seq_len: int | None = None
    image_size: int | None = None
    precision: str = "bf16"
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        """Refuse sizes and names that no training run has."""
        if not _whole(self.global_batch) or self.global_batch < 1:
            raise RecipeError(f"global batch {self.global_batch!r} is not a batch; give a whole number of samples from 1")
        if self.global_batch > LARGEST_BATCH:
            raise RecipeError(f"global batch {self.global_batch:,} is beyond any training run; give at most {LARGEST_BATCH:,} samples")
        if self.seq_len is not None and (not _whole(self.seq_len) or self.seq_len < 1):
            raise RecipeError(f"sequence length {self.seq_len!r} is no length; give a whole number of tokens from 1")
        if self.image_size is not None and (not _whole(self.image_size) or not 1 <= self.image_size <= LARGEST_IMAGE):
            raise RecipeError(f"image size {self.image_size!r} is no size; give a whole number of pixels a side, 1 to {LARGEST_IMAGE:,}")
        # Whole numbers of other kinds, as NumPy's, become Python's, which JSON holds.
        object.__setattr__(self, "global_batch", int(self.global_batch))
        for size in ("seq_len", "image_size"):
            given = getattr(self, size)
            object.__setattr__(self, size, None if given is None else int(given))
        _known("precision", self.precision, PRECISIONS)
        _known("optimizer", self.optimizer, OPTIMIZERS)


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise RecipeError(f"{what} {name!r} is unknown; use one of {', '.join(known)}{nearest(str(name), known)}")
