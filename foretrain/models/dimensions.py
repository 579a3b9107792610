"""The dimensions that define a decoder transformer, checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foretrain.errors import ModelError, nearest
from foretrain.models.patterns import ACTIVATIONS, GATED_NAMES

POSITIONS = ("learned", "rotary", "alibi", "none")
NORMS = ("layernorm", "rmsnorm")
# Far above anything built; what lies beyond is a slip of units or digits, and would only overflow later.
_LARGEST = {
    "layers": 100_000,
    "hidden": 10_000_000,
    "heads": 100_000,
    "vocab": 1_000_000_000,
    "seq_len": 1_000_000_000,
    "ffn_hidden": 100_000_000,
    "kv_heads": 100_000,
    "head_dim": 1_000_000,
    "max_positions": 1_000_000_000,
    "window": 1_000_000_000,
    "vocab_padded_to": 1_000_000,
}
_DERIVED = ("ffn_hidden", "kv_heads", "head_dim", "max_positions", "window")
_WORDS = {"positions": POSITIONS, "norm": NORMS, "activation": ACTIVATIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer:
    """A decoder of equal pre-norm layers: attention, then an MLP, each added to the residual stream.

    Left out, `ffn_hidden` is 4 × hidden, `kv_heads` is `heads`, `head_dim` is hidden / heads and `max_positions` (rows of a learned
    position table) is `seq_len`. `bias` covers linear layers and layer norms. `vocab_padded_to` pads the vocabulary to a multiple of
    itself times tp where it is computed (Megatron-LM: 128); parameters and model FLOPs count the given one.

    Raises:
        ModelError: naming every dimension that cannot be.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    vocab: int
    seq_len: int
    ffn_hidden: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    positions: str = "learned"
    max_positions: int | None = None
    norm: str = "layernorm"
    embedding_norm: bool = False
    activation: str = "gelu"
    gated: bool = False
    bias: bool = True
    tied: bool = True
    dropout: bool = True
    causal: bool = True
    window: int | None = None
    vocab_padded_to: int = 1
    key: str = ""
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be built, all faults in one message."""
        faults = tuple(_faults(self))
        if faults:
            raise ModelError(f"{self.name or 'model'}: " + "; ".join(faults))

    @property
    def mlp_width(self) -> int:
        """Inner width of the MLP."""
        return 4 * self.hidden if self.ffn_hidden is None else self.ffn_hidden

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values; fewer than `heads` where queries share them."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads if self.head_dim is None else self.head_dim

    @property
    def position_rows(self) -> int:
        """Rows of the learned position table; a sequence longer than the table needs a longer table."""
        return max(self.max_positions or self.seq_len, self.seq_len)


def fault_of(field: str, value: object) -> str | None:
    """Return why `field` cannot be `value`, whatever the other fields are; None where it can."""
    if field in _WORDS:
        known = _WORDS[field]
        return None if value in known else f"{value!r} is unknown; use one of {', '.join(known)}{nearest(str(value), known)}"
    if field not in _LARGEST or (value is None and field in _DERIVED):
        return None
    largest = _LARGEST[field]
    if isinstance(value, bool) or not isinstance(value, int):
        return f"{value!r} is no whole number; give one from 1 to {largest:,}"
    return None if 1 <= value <= largest else f"{value:,} is out of range; give a whole number from 1 to {largest:,}"


def _faults(spec: Transformer) -> Iterator[str]:
    """Yield every reason why a model cannot be built."""
    found = {field: fault_of(field, getattr(spec, field)) for field in (*_LARGEST, *_WORDS)}
    yield from (f"{field} {fault}" for field, fault in found.items() if fault)
    if not any(found[field] for field in ("hidden", "heads", "kv_heads", "head_dim")):
        yield from _head_faults(spec)
    if spec.activation in GATED_NAMES and not spec.gated:
        yield f"activation {spec.activation} has a gate, but gated is false; set gated: true"


def _head_faults(spec: Transformer) -> Iterator[str]:
    if spec.head_dim is None and spec.hidden % spec.heads:
        yield (
            f"heads={spec.heads} does not divide hidden={spec.hidden}; use a divisor ({_nearby(spec.hidden, spec.heads)}) or give head_dim"
        )
    if spec.heads % spec.key_value_heads:
        yield f"kv_heads={spec.key_value_heads} does not divide heads={spec.heads}; use {_nearby(spec.heads, spec.key_value_heads)}"


def _nearby(size: int, wanted: int) -> str:
    """Return the divisors of `size` next to `wanted`, below and above."""
    below = next(n for n in range(min(wanted, size), 0, -1) if size % n == 0)
    above = next((n for n in range(wanted, size + 1) if size % n == 0), below)
    return f"{below}" if below == above else f"{below} or {above}"
