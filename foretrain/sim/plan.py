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
UNFOLD = ("dp", "tp", "cp")
ORDERS = ("tp-dp-pp", "tp-pp-dp", "dp-tp-pp", "dp-pp-tp", "pp-tp-dp", "pp-dp-tp")
"""Orders in which ranks are numbered, fastest dimension first; neighbours in number are neighbours in the machine."""
CP_ORDERS = tuple(order.replace("dp", both) for both in ("cp-dp", "dp-cp") for order in ORDERS)
"""Orders that name cp: its ranks hold the same parameters as those of dp and stand beside them, right before where they are not named."""
CP_MODES = ("ring", "all-gather", "ulysses")
CP_CUTS = ("balanced", "contiguous")
LARGEST_LOAD = 1000.0
"""Far above any expert's: what lies beyond is a slip of digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A layout: dp × tp × pp × cp accelerators.

    `vpp` model chunks per pipeline stage (interleaving). `zero` 0, 1 (optimizer sharded), 2 (gradients too; FSDP's
    SHARD_GRAD_OP) or 3 (fully sharded, FSDP); `shard` is the number of ranks that share one copy (None: all of dp × cp; fewer is HSDP
    or grouped ZeRO). `recompute` is none, selective or full, of all layers or of every n-th (`full:2`); `recompute_layers` is how many
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
    and so laid over the nodes, fastest dimension first: `tp-dp-pp` is Megatron-LM's. `unfold` names the dimensions (`dp`, `tp`, `cp`) to
    simulate rank by rank instead of once per class.

    `cp` ranks share the rows of each sample, and attention joins them by `cp_mode`: `ring`, `all-gather` or `ulysses` (rows are
    swapped for heads). `cp_cut` is `balanced` (two parts a rank, one from either end) or `contiguous`, which leaves ranks of causal
    attention unlike amounts of work. `ep` of the dp × cp ranks share the experts of a mixture; the busiest of them takes
    `expert_imbalance` times an even share of the tokens, or each takes `capacity_factor` times that, padding included.
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
    cp: int = 1
    cp_mode: str = "ring"
    cp_cut: str = "balanced"
    ep: int = 1
    expert_imbalance: float = 1.0
    capacity_factor: float | None = None
    unfold: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse what no machine could run; divisibility against a model and cluster is checked in `placement`."""
        self._count("dp", "tp", "pp", "vpp", "micro_batch", "cp", "ep")
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
        orders = CP_ORDERS if "cp" in str(self.order) else ORDERS
        if self.order not in orders:
            what = "tp, dp and pp" if orders is ORDERS else "tp, dp and pp with cp beside dp"
            known = ", ".join(orders)
            raise PlanError(f"order={self.order!r} is no order of {what}; use one of {known}{nearest(str(self.order), orders)}")
        self._layers()
        self._dimensions()
        self._context()
        self._experts()

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
                known = f"{', '.join(UNFOLD[:-1])} or {UNFOLD[-1]}"
                raise PlanError(f"unfold={name!r} cannot be unfolded; use {known}{nearest(name, UNFOLD)}")

    def _context(self) -> None:
        """Refuse what says how sequences are cut where nothing is cut, or where it would change nothing."""
        for name, known in (("cp_mode", CP_MODES), ("cp_cut", CP_CUTS)):
            value = getattr(self, name)
            if value not in known:
                raise PlanError(f"{name}={value!r} is unknown; use one of {', '.join(known)}{nearest(str(value), known)}")
            if self.cp == 1 and value != known[0]:
                raise PlanError(f"{name}={value} says how sequences are cut, but cp=1; raise cp or leave it out")
        if self.cp_mode == "ulysses" and self.cp_cut == "contiguous":
            raise PlanError("cp_cut=contiguous changes nothing with cp_mode=ulysses, where every rank has the whole sequence; leave it out")
        if self.cp == 1 and "cp" in self.order:
            raise PlanError(f"order={self.order} places cp, but cp=1; raise cp or leave cp out of the order")

    def _experts(self) -> None:
        """Refuse loads that no expert has, or that nobody waits for."""
        for name in ("expert_imbalance", "capacity_factor"):
            value = getattr(self, name)
            if name == "capacity_factor" and value is None:
                continue
            least = 1.0 if name == "expert_imbalance" else 0.0
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= LARGEST_LOAD or value == 0.0:
                raise PlanError(f"{name}={value!r} is no load; give a number {'from 1' if least else 'above 0'} to {LARGEST_LOAD:g}")
            object.__setattr__(self, name, float(value))
        if self.ep == 1 and (self.expert_imbalance != 1.0 or self.capacity_factor is not None):
            name = "expert_imbalance" if self.capacity_factor is None else "capacity_factor"
            raise PlanError(f"{name} spreads tokens over expert-parallel ranks, but ep=1; raise ep or leave it out")
        if self.expert_imbalance != 1.0 and self.capacity_factor is not None:
            raise PlanError("expert_imbalance and capacity_factor are two ways to say what the busiest rank takes; leave one of them out")

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
        return self.dp * self.tp * self.pp * self.cp

    @property
    def strides(self) -> dict[str, int]:
        """Ranks between neighbours along each dimension."""
        order = self.order if "cp" in self.order else self.order.replace("dp", "cp-dp")
        found, stride = dict[str, int](), 1
        for name in order.split("-"):
            found[name] = stride
            stride *= getattr(self, name)
        return found

    @property
    def copies(self) -> int:
        """Ranks whose gradients are reduced together: those of dp and of cp hold the same parameters."""
        return self.dp * self.cp

    @property
    def shards(self) -> int:
        """Ranks that share one copy of the sharded state: 1 where nothing is sharded."""
        return 1 if self.zero == 0 else (self.shard or self.copies)

    @property
    def expert_shards(self) -> int:
        """Ranks that share one copy of the sharded state of the experts."""
        return max(1, self.shards // self.ep)

    def shard_of(self, whole: float, experts: float) -> float:
        """Return what one rank holds of what is sharded, `experts` of it over the ranks that hold the same ones."""
        return (whole - experts) / self.shards + experts / self.expert_shards


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _one_share(share: RecomputeShare, recompute: str, layers: int) -> None:
    """Refuse a number of layers beside nothing to recompute, or beside another share of them."""
    if share.policy == "none":
        raise PlanError(f"recompute_layers={layers} has nothing to recompute beside recompute=none; use recompute full or selective")
    if share.every > 1:
        raise PlanError(f"recompute={recompute} and recompute_layers={layers} both say which layers run again; leave out one of them")
