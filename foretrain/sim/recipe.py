"""What is trained, whatever the machine."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from foretrain.errors import RecipeError, nearest
from foretrain.sim.optimizer_rules import RULES

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8", "fp8-delayed", "fp8-tensorwise", "fp8-rowwise", "fp8-block", "mxfp8", "nvfp4")
LARGEST_BATCH = 10**9
LARGEST_IMAGE = 100_000
OPTIMIZERS = tuple(RULES)
GRADIENTS = ("fp32", "bf16", "fp16")
CLIPS = ("none", "global")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Batch in samples, sequence length in tokens, image size in pixels a side (None: the model's own), precision and optimizer by name.

    `grad_dtype` is what gradients are accumulated and reduced in, `master_weights` whether an fp32 copy of 16-bit weights is updated
    (None: as the framework does). `clip` is `none`, or `global`: with the exchange of the norm over all ranks (None: the framework's
    own, whose exchange is within its time per step).
    """

    global_batch: int
    seq_len: int | None = None
    image_size: int | None = None
    precision: str = "bf16"
    optimizer: str = "adamw"
    grad_dtype: str | None = None
    master_weights: bool | None = None
    clip: str | None = None

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
        if self.clip is not None:
            _known("clip", self.clip, CLIPS)
        self._dtypes()

    @property
    def needs_exchange(self) -> bool:
        """Whether ranks exchange anything around the optimizer step itself."""
        return self.clip == "global" or RULES[self.optimizer].orthogonal

    def _dtypes(self) -> None:
        """Refuse gradients and masters that contradict the precision."""
        full = self.precision in ("fp32", "tf32")
        if self.master_weights is False and full:
            raise RecipeError(
                f"no master weights with precision {self.precision}, whose weights are the master; use bf16 or fp16, or leave one out"
            )
        if self.grad_dtype is None:
            return
        _known("grad-dtype", self.grad_dtype, GRADIENTS)
        own = "fp32" if full else "fp16" if self.precision == "fp16" else "bf16"
        if self.grad_dtype not in ("fp32", own):
            either = "fp32" if full else f"fp32 or {own}"
            raise RecipeError(f"grad-dtype {self.grad_dtype} contradicts precision {self.precision}; use {either}")


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise RecipeError(f"{what} {name!r} is unknown; use one of {', '.join(known)}{nearest(str(name), known)}")
