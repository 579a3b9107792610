"""What is trained, whatever the machine."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import RecipeError, nearest

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
LARGEST_BATCH = 10**9
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Batch in samples (sequences), sequence length in tokens (None: the model's own), precision and optimizer by name."""

    global_batch: int
    seq_len: int | None = None
    precision: str = "bf16"
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        """Refuse sizes and names that no training run has."""
        if self.global_batch < 1:
            raise RecipeError(f"global batch {self.global_batch} is not a batch; give a whole number of samples from 1")
        if self.global_batch > LARGEST_BATCH:
            raise RecipeError(f"global batch {self.global_batch:,} is beyond any training run; give at most {LARGEST_BATCH:,} samples")
        if self.seq_len is not None and self.seq_len < 1:
            raise RecipeError(f"sequence length {self.seq_len} is no length; give a whole number of tokens from 1")
        _known("precision", self.precision, PRECISIONS)
        _known("optimizer", self.optimizer, OPTIMIZERS)


def _known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise RecipeError(f"{what} {name!r} is unknown; use one of {', '.join(known)}{nearest(name, known)}")
