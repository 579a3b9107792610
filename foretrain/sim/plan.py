"""How a recipe is laid out over the accelerators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Integral

from foretrain.errors import PlanError, nearest
from foretrain.sim.compression import compression_of
from foretrain.sim.offload_parts import offloaded
from foretrain.sim.recompute_share import RecomputeShare, recompute_share
from foretrain.sim.replication import ALL_REDUCE, check_replication
from foretrain.sim.schedules.base import Schedule
from foretrain.sim.schedules.one_f_one_b import OneForwardOneBackward

SYNCS = ("step", "micro-batch")
UNFOLD = ("dp", "tp")
ORDERS = ("tp-dp-pp", "tp-pp-dp", "dp-tp-pp", "dp-pp-tp", "pp-tp-dp", "pp-dp-tp")
"""Orders in which ranks are numbered, fastest dimension first; neighbours in number are neighbours in the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A layout: dp × tp × pp accelerators.

    `vpp` model chunks per pipeline stage (interleaving). `zero` 0, 1 (optimizer sharded), 2 (gradients too; FSDP's
    SHARD_GRAD_OP) or 3 (fully sharded, FSDP); `shard` is the number of ranks that share one copy (None: all of dp; fewer is HSDP or
    grouped ZeRO). `recompute` is none, selective or full, of all layers or of every n-th (`full:2`); `recompute_layers` is how many
    layers of each model chunk it applies to instead (None: all). `gradient_sync` says when replicas reduce gradients: once a `step`
    (under `no_sync`) or every `micro-batch`; None is what the sharding asks for.
    `gradient_compression` is fp16, bf16, `powersgd:RANK` or `topk:SHARE`. `offload` names
    what lies in the host's memory: optimizer, parameters, activations, with commas between them.
    `replication` is how replicas are kept alike: `all-reduce` in every step; `local-sgd` and `diloco` every `local_steps`;
    `first-device` as torch.nn.DataParallel does; `parameter-server` over so many `servers` (None: one a node).
    `layers_per_stage` counts the layers of
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
    recompute_layers: int | None = None
    gradient_sync: str | None = None
    gradient_compression: str | None = None
    offload: str | None = None
    replication: str = ALL_REDUCE
    local_steps: int | None = None
    servers: int | None = None
    order: str = "tp-dp-pp"
    unfold: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse what no machine could run; divisibility against a model and cluster is checked in `placement`."""
        self._count("dp", "tp", "pp", "vpp", "micro_batch")
        if self.shard is not None:
            self._count("shard")
        if not isinstance(self.schedule, Schedule):
            raise PlanError(f"schedule={self.schedule!r} is no schedule; give an object, such as schedule_by_name('1f1b')")
        if isinstance(self.zero, bool) or self.zero not in (0, 1, 2, 3):
            known = "0 (replicated), 1 (optimizer sharded), 2 (gradients too) or 3 (fully sharded)"
            raise PlanError(f"zero={self.zero!r} is no stage of sharding; use {known}")
        object.__setattr__(self, "zero", int(self.zero))
        share = recompute_share(self.recompute)
        if self.recompute_layers is not None:
            self._count("recompute_layers")
            _one_share(share, self.recompute, self.recompute_layers)
        self._synchronised()
        offloaded(self.offload)
        self._count(*(name for name in ("local_steps", "servers") if getattr(self, name) is not None))
        check_replication(self)
        if compression_of(self.gradient_compression) is not None and self.zero:
            raise PlanError(
                f"gradient_compression={self.gradient_compression} is for gradients that replicas reduce whole, but zero={self.zero} "
                "shards state; use zero 0, or --grad-dtype bf16 for fewer bytes on the wire"
            )
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

    def _synchronised(self) -> None:
        """Refuse to keep whole gradients between micro-batches where they are sharded."""
        if self.gradient_sync is None:
            return
        if self.gradient_sync not in SYNCS:
            known = " or ".join(SYNCS)
            raise PlanError(f"gradient_sync={self.gradient_sync!r} is unknown; use {known}{nearest(str(self.gradient_sync), SYNCS)}")
        if self.gradient_sync == "step" and self.zero >= 2:
            raise PlanError(
                f"gradient_sync=step keeps whole gradients until the last micro-batch, but zero={self.zero} shards them; "
                "use gradient_sync=micro-batch, or zero 0 or 1"
            )

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
    def syncs_every_microbatch(self) -> bool:
        """Whether gradients are reduced in every backward pass, not in the last of a step only."""
        return self.zero >= 2 or self.gradient_sync == "micro-batch"

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


def _one_share(share: RecomputeShare, recompute: str, layers: int) -> None:
    """Refuse a number of layers beside nothing to recompute, or beside another share of them."""
    if share.policy == "none":
        raise PlanError(f"recompute_layers={layers} has nothing to recompute beside recompute=none; use recompute full or selective")
    if share.every > 1:
        raise PlanError(f"recompute={recompute} and recompute_layers={layers} both say which layers run again; leave out one of them")
