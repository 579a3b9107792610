"""What the name of a field says: its unit, and what no machine can have.

Names end in the unit (`limit_w`, `bandwidth_bytes_per_s`), so a profile or `--set` needs no second table of units.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from foretrain.errors import ProfileError, shortened
from foretrain.units import parse

_UNITS = (
    ("_flop_per_s", "FLOP/s"),
    ("_bytes_per_s", "B/s"),
    ("_bytes_per_rank", "B"),
    ("_j_per_flop", "J/FLOP"),
    ("_j_per_byte", "J/B"),
    ("_w_per_accelerator", "W"),
    ("usd_per_kwh", "USD/kWh"),
    ("usd_per_hour", "USD/h"),
    ("g_per_kwh", "g/kWh"),
    ("_bytes", "B"),
    ("_flop", "FLOP"),
    ("_s", "s"),
    ("_w", "W"),
    ("_hz", "Hz"),
    ("_j", "J"),
)
# Greatest value of each unit, far above any machine: what lies beyond is a slip of the prefix.
_GREATEST = {
    "FLOP/s": 1e19, "B/s": 1e16, "B": 1e16, "s": 1e5, "W": 1e7, "J": 1e15, "FLOP": 1e30, "Hz": 1e11,
    "J/FLOP": 1e-8, "J/B": 1e-6, "USD/h": 1e5, "USD/kWh": 100.0, "g/kWh": 1e4, "1": 1e6,
}  # fmt: skip
# Least value of a rate, far below any machine: less would only overflow what is divided by it.
_LEAST = {"FLOP/s": 1e3, "B/s": 1e3}
# Shares of a peak that a machine reaches; below a thousandth is a slip too, and would overflow what is divided by it.
_FRACTIONS = (
    "efficiency", "tile_efficiency", "point_to_point_efficiency", "sustained", "forward", "backward", "narrow_head",
    "data", "weight", "strided_data", "few_channels", "direct",
)  # fmt: skip
# Of a parameter, or of a logit.
_PER_ONE = (
    "parameter_bytes", "gradient_bytes", "master_bytes", "gather_bytes", "reduce_bytes", "working_gradient_bytes",
    "main_gradient_bytes", "kept_bytes", "beside_bytes", "cut_beside_bytes",
)  # fmt: skip
KERNELS = ("flash1", "flash2", "flash3", "xla")
WORDS = {
    "topology": (
        "switch", "mesh", "cube-mesh", "pcie", "torus-1d", "torus-2d", "torus-3d", "fat-tree", "rail", "dragonfly", "none",
    ),
    "library": ("nccl", "rccl", "xla", "gloo"),
    "attention": ("unfused", *KERNELS),
    "fused": (
        "bias_gelu", "swiglu", "bias_dropout_add", "norm", "softmax", "cross_entropy", "rotary", "pointwise", "optimizer",
        "optimizer_lists",
        "batch_norm_relu", "batch_norm_add_relu", "add_relu", "interaction",
    ),
    "stride_in": ("3x3", "1x1"),
    "cell": ("rnn", "gru", "lstm"),
    "fp8_scaling": ("delayed", "tensorwise", "rowwise", "block"),
    "selective": ("core_attention", "alternate_products", "alternate_products_read", "all_but_products"),
}
"""Fields that hold one or several of a few words."""
_COUNTS = {
    "zero": (0, 3), "global_batch": (1, 10**9), "seq_len": (1, 10**9), "vocab": (1, 10**9), "hidden": (1, 10**9),
    "layers_per_stage": (0, 10**6), "ffn_hidden": (1, 10**9), "max_positions": (1, 10**9), "window": (1, 10**9),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of a field in its unit; `above_zero` refuses zero itself."""

    unit: str
    least: float
    greatest: float
    above_zero: bool

    def __str__(self) -> str:
        """Return the range as an error names it."""
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f"{'above ' if self.above_zero else ''}{self.least:g} to {self.greatest:g}{unit}"


def unit_of(name: str) -> str:
    """Return the unit that the name of a field ends in, "1" where it has none."""
    return next((unit for suffix, unit in _UNITS if name.endswith(suffix)), "1")


@functools.cache
def bounds_of(name: str) -> Bounds:
    """Return what a field of this name may hold, wherever it stands."""
    unit = unit_of(name)
    if name in _FRACTIONS:
        return Bounds(unit, 1e-3, 1.2, above_zero=False)
    if name in _PER_ONE:
        return Bounds(unit, 0.0, 64.0, above_zero=False)
    special = {
        "overlap_loss": Bounds(unit, 0.0, 0.95, above_zero=False),
        "spread": Bounds(unit, 0.0, 0.5, above_zero=False),
        "wave_smoothing": Bounds(unit, 0.0, 1.0, above_zero=False),
        "fragmentation": Bounds(unit, 0.0, 1.0, above_zero=False),
        "in_network_reduction": Bounds(unit, 0.0, 1.2, above_zero=False),
        "oversubscription": Bounds(unit, 1.0, 100.0, above_zero=False),
        "pue": Bounds(unit, 1.0, 5.0, above_zero=False),
        "memory_bytes": Bounds(unit, 0.0, 1e16, above_zero=True),
        "capacity_bytes": Bounds(unit, 0.0, 1e16, above_zero=True),
        "gradient_bucket_bytes": Bounds(unit, 0.0, 1e16, above_zero=True),
        "copied_elements": Bounds(unit, 0.0, 1e12, above_zero=False),
        "limit_w": Bounds(unit, 0.0, 1e7, above_zero=True),
        "cap_w": Bounds(unit, 0.0, 1e7, above_zero=True),
        "highest_voltage": Bounds(unit, 1.0, 3.0, above_zero=True),
        "math_share": Bounds(unit, 0.0, 1.0, above_zero=True),
        "padding_share": Bounds(unit, 0.0, 1.0, above_zero=False),
        "memory_share": Bounds(unit, 0.0, 1.0, above_zero=False),
        "supply_efficiency": Bounds(unit, 0.5, 1.0, above_zero=True),
        "winograd": Bounds(unit, 1.0, 4.0, above_zero=True),
    }
    if name.endswith("_scale"):
        return Bounds(unit, 0.01, 2.0, above_zero=False)
    return special.get(name, Bounds(unit, _LEAST.get(unit, 0.0), _GREATEST[unit], above_zero=False))


def words_of(name: str) -> tuple[str, ...]:
    """Return the words that a field of this name may hold, none where any text will do."""
    return WORDS.get(name, ())


def count_bounds(name: str) -> tuple[int, int]:
    """Return the least and the greatest whole number that a field of this name may hold."""
    return _COUNTS.get(name, (1, 1_000_000))


def read_number(name: str, text: str) -> float:
    """Return the number that `text` gives for a field called `name`, in the field's unit.

    Raises:
        ProfileError: where the unit is another one, or the number outside what any machine has.
    """
    bounds = bounds_of(name)
    value = parse(text, bounds.unit)
    if not bounds.least <= value <= bounds.greatest or (bounds.above_zero and value == 0):
        raise ProfileError(f"{text!r} is out of range; give {bounds}")
    return value


def read_count(text: str, least: int = 1, greatest: int = 1_000_000) -> int:
    """Return a whole number from `least` to `greatest`."""
    try:
        value = int(text)
    except ValueError:
        raise ProfileError(f"{shortened(text)} is no whole number; give one from {least:,} to {greatest:,}") from None
    if not least <= value <= greatest:
        raise ProfileError(f"{shortened(text)} is out of range; give a whole number from {least:,} to {greatest:,}")
    return value
