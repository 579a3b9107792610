"""How a recipe is laid out over the accelerators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Integral

from foretrain.errors import PlanError, nearest
from foretrain.sim.schedules.base import Schedule
from foretrain.sim.schedules.one_f_one_b import OneForwardOneBackward

RECOMPUTE = ("none", "selective", "full")
UNFOLD = ("dp", "tp")
ORDERS = ("tp-dp-pp", "tp-pp-dp", "dp-tp-pp", "dp-pp-tp", "pp-tp-dp", "pp-dp-tp")
"""Orders in which ranks are numbered, fastest dimension first; neighbours in number are neighbours in the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A layout: dp × tp × pp accelerators.

    `vpp` model chunks per pipeline stage (interleaving). `zero` 0, 1 (optimizer sharded) or 3 (fully sharded, FSDP); `shard` is
    the number of ranks that share one copy (None: all of dp; fewer is HSDP or grouped ZeRO). `layers_per_stage` counts the layers of
    each model chunk, in the order of the model (None: equal ones); embedding and head come on top where they sit.
    `defer_embedding_wgrad` leaves the gradient of the output layer's weights to the end of the step, when the last stage waits for the
    others (Megatron-Core's option of that name). `order` is how ranks are numbered
    and so laid over the nodes, fastest dimension first: `tp-dp-pp` is Megatron-LM's. `unfold` names the dimensions (`dp`, `tp`) to
    simulate rank by rank instead of once per class.
    """

    dp: int = 1
    tp: int = 1
    pp: int = 1
    vpp: int = 1
    zero: int = 0
    shard: int | None = None
    sequence_parallel: bool = False
    micro_batch: int = 1
    schedule: Schedule = field(default_factory=OneForwardOneBackward)
    layers_per_stage: tuple[int, ...] | None = None
    defer_embedding_wgrad: bool = False
    recompute: str = "none"
    order: str = "tp-dp-pp"
    unfold: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse what no machine could run; divisibility against a model and cluster is checked in `placement`."""
        self._count("dp", "tp", "pp", "vpp", "micro_batch")
        if self.shard is not None:
            self._count("shard")
        if not isinstance(self.schedule, Schedule):
            raise PlanError(f"schedule={self.schedule!r} is no schedule; give an object, such as schedule_by_name('1f1b')")
        if isinstance(self.zero, bool) or self.zero not in (0, 1, 3):
            raise PlanError(f"zero={self.zero!r} is not simulated; use 0 (replicated), 1 (optimizer sharded) or 3 (fully sharded)")
        object.__setattr__(self, "zero", int(self.zero))
        if self.recompute not in RECOMPUTE:
            known = ", ".join(RECOMPUTE)
            raise PlanError(f"recompute={self.recompute!r} is unknown; use one of {known}{nearest(str(self.recompute), RECOMPUTE)}")
        if self.order not in ORDERS:
            known = ", ".join(ORDERS)
            raise PlanError(f"order={self.order!r} is no order of tp, dp and pp; use one of {known}{nearest(str(self.order), ORDERS)}")
        self._layers()
        self._dimensions()

    def _layers(self) -> None:
        """Refuse what counts no layers; whether they are the model's is checked in `placement`."""
        given = self.layers_per_stage
        if given is None:
            return
        counts = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (None,)
        if not all(_whole(count) and count >= 0 for count in counts):
            raise PlanError(f"layers_per_stage={given!r} is no list of layers; give a whole number for each chunk, such as (7, 8, 8, 7)")
        object.__setattr__(self, "layers_per_stage", tuple(int(count) for count in counts))

    def _dimensions(self) -> None:
        """Refuse what cannot be unfolded."""
        if isinstance(self.unfold, str) or not isinstance(self.unfold, Iterable):
            raise PlanError(f"unfold={self.unfold!r} is no set of dimensions; give one, such as {{'dp'}}")
        object.__setattr__(self, "unfold", frozenset(self.unfold))
        for name in sorted(self.unfold):
            if name not in UNFOLD:
                raise PlanError(f"unfold={name!r} cannot be unfolded; use {' or '.join(UNFOLD)}{nearest(name, UNFOLD)}")

    def _count(self, *names: str) -> None:
        """Refuse degrees that are no whole numbers from 1; whole numbers of other kinds, as NumPy's, become Python's, which JSON holds."""
        for name in names:
            value = getattr(self, name)
            if not _whole(value) or value < 1:
                raise PlanError(f"{name}={value!r} is no degree; give a whole number from 1")
            object.__setattr__(self, name, int(value))

    @property
    def ranks(self) -> int:
        """Accelerators that the plan occupies."""
        return self.dp * self.tp * self.pp

    @property
    def strides(self) -> dict[str, int]:
        """Ranks between neighbours along each dimension."""
        found, stride = dict[str, int](), 1
        for name in self.order.split("-"):
            found[name] = stride
            stride *= getattr(self, name)
        return found

    @property
    def shards(self) -> int:
        """Ranks that share one copy of the sharded state: 1 where nothing is sharded."""
        return 1 if self.zero == 0 else (self.shard or self.dp)


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
