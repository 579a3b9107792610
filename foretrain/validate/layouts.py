"""The layout of a published run: how its sharding, recomputation and pipeline chunks are said, and the plan they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

from foretrain.errors import PlanError
from foretrain.validate.cells import Row, needed, text, whole

_GROUPS = re.compile(r"groups? of (\d+)|shard\s*=\s*(\d+)|\bFSDP\d?\s*=\s*(\d+)|\bici\s*=\s*(\d+)", re.IGNORECASE)
_HYBRID = re.compile(r"HSDP|hybrid|shard(ed)? in node|within node", re.IGNORECASE)
_STAGE_2 = r"ZeRO-?2|SHARD_GRAD_OP|not resharded|zero_?stage\s*=?\s*2"
_STAGE_3 = r"ZeRO-?3|[FH]SDP|FULL_SHARD|fully sharded|zero_?stage\s*=?\s*3"
_STAGE_1 = r"ZeRO-?1|distributed[- ]optimizer|zero_?stage\s*=?\s*1"
_STAGE_0 = r"ZeRO-?0|\bnone\b|\bDDP\b|\bDP\b|data[- ]parallel|replicated|^-$"

UNEVEN_REMAT = re.compile(r"every|n-th|\bnth\b|2nd|\d+ (of )?(the )?(\d+ )?(layers|blocks)|partial|num.layers", re.IGNORECASE)
"""Recomputation of some of the layers only."""

_NTH = re.compile(r"every (\d+)(?:st|nd|rd|th)? (?:layer|block)", re.IGNORECASE)


def sharding(row: Row, *, dp: int, per_node: int, slices: int) -> tuple[int, int | None, tuple[str, ...]]:
    """Return ZeRO stage, ranks that share one copy (None: all of dp) and what had to be assumed.

    Raises:
        PlanError: where the words mean something that is not simulated, or nothing.
    """
    words = text(row, "zero_or_fsdp")
    if dp == 1 and not words:
        return 0, None, ()
    zero = _stage(words)
    assumed = (f"{words!r} taken as ZeRO-1",) if zero == 1 and "DDP" in words else ()
    return zero, _shared(words, zero=zero, dp=dp, per_node=per_node, slices=slices), assumed


def offload(row: Row) -> str | None:
    """Return the parts that lie in the host's memory.

    Raises:
        PlanError: where a row says that something does and not what.
    """
    words = f"{text(row, 'zero_or_fsdp')} {text(row, 'optimizer')}"
    if not re.search("offload", words, re.IGNORECASE):
        return None
    whole = re.search("full offload", words, re.IGNORECASE)
    optimizer = whole or re.search(r"opt(imizer)? offload", words, re.IGNORECASE)
    parameters = whole or re.search(r"param(eter)?s? offload", words, re.IGNORECASE)
    if not (optimizer or parameters):
        raise PlanError(f"{words.strip()!r}: what is offloaded to the host is not stated; optimizer, parameters or full is expected")
    return ",".join(["optimizer"] * bool(optimizer) + ["parameters"] * bool(parameters))


def _stage(words: str) -> int:
    for stage, pattern in ((2, _STAGE_2), (3, _STAGE_3), (1, _STAGE_1), (0, _STAGE_0)):
        if re.search(pattern, words, re.IGNORECASE):
            return stage
    if words:
        raise PlanError(f"how the state is sharded is {words!r}; ZeRO-0 to 3, FSDP, DDP or none is expected")
    raise PlanError("how the state is sharded is not given (zero_or_fsdp is empty)")


def _shared(words: str, *, zero: int, dp: int, per_node: int, slices: int) -> int | None:
    """Return the ranks that share one copy, None where all of dp do."""
    if zero == 0:
        return None
    found = _GROUPS.search(words)
    if found:
        shard = int(next(group for group in found.groups() if group))
    elif _HYBRID.search(words):
        shard = per_node
    elif "ici" in words and slices > 1:
        shard = dp // slices
    else:
        return None
    return shard if shard < dp else None


def recomputation(row: Row) -> tuple[str, tuple[str, ...]]:
    """Return the recomputation class that is simulated, and what had to be assumed.

    Raises:
        PlanError: where it is not given, or covers a share of the layers.
    """
    words, kind = text(row, "recompute"), text(row, "recompute_class")
    nth = _NTH.search(words)
    if nth and kind in ("selective", "full"):
        # torchtitan's `selective` with a number checkpoints every n-th layer whole.
        return f"full:{nth.group(1)}", ()
    if UNEVEN_REMAT.search(words):
        raise PlanError(f"recompute {words!r}: recomputing a share of the layers is not simulated in this release")
    if kind == "custom" and re.search("offload", words, re.IGNORECASE):
        return "full", (f"recompute {words!r} taken as full: offload of activations is not simulated",)
    if kind == "selective" and words not in ("selective", ""):
        return kind, (f"recompute {words!r} taken as what the software profile runs again",)
    if kind in ("none", "selective", "full"):
        return kind, ()
    if words:
        raise PlanError(f"recompute {words!r} is not simulated in this release")
    raise PlanError("recomputation is not given (recompute_class is empty)")


def pipeline_chunks(row: Row, *, pp: int, layers: int, microbatches: int) -> tuple[int, tuple[str, ...]]:
    """Return the model chunks per stage; where the source does not say, the largest of 1–4 that divides a stage, as assumed."""
    given = whole(row, "vpp")
    if given is not None:
        return given, ()
    if pp == 1:
        return 1, ()
    fitting = [v for v in (4, 3, 2) if layers % (pp * v) == 0 and microbatches % pp == 0]
    vpp = fitting[0] if fitting else 1
    return vpp, (f"vpp={vpp} (not given; the largest of 1-4 that divides the layers of a stage)",)


def micro_batch(row: Row, *, dp: int, n_accelerators: int, tpu: bool) -> int:
    """Return samples per replica and micro-batch. On TPU the row gives them per device.

    Raises:
        PlanError: where it is not given or not whole.
    """
    if not text(row, "micro_batch_seqs"):
        raise PlanError("micro-batch is not given (micro_batch_seqs is empty)")
    if not tpu:
        return needed(row, "micro_batch_seqs", "micro-batch")
    replica = float(text(row, "micro_batch_seqs")) * n_accelerators / dp
    if replica != int(replica) or replica < 1:
        devices = n_accelerators // dp
        raise PlanError(f"a replica of {devices} devices would train {replica:g} sequences at a time; a whole number is simulated")
    return int(replica)


def accumulation(*, global_batch: int, dp: int, micro: int) -> int:
    """Return the micro-batches of a step.

    Raises:
        PlanError: where they are not a whole number; names the nearest global batch.
    """
    samples = dp * micro
    if global_batch % samples == 0:
        return global_batch // samples
    near = max(1, round(global_batch / samples)) * samples
    raise PlanError(f"global batch {global_batch} is no multiple of dp={dp} × micro-batch {micro}; the nearest is {near}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrees:
    """The degrees of a row: dp × tp × pp × cp accelerators, the experts over `ep` of dp × cp."""

    dp: int
    tp: int
    pp: int
    cp: int = 1
    ep: int = 1

    @property
    def copies(self) -> int:
        """Ranks that hold the same parameters."""
        return self.dp * self.cp

    @property
    def ranks(self) -> int:
        """Accelerators."""
        return self.dp * self.tp * self.pp * self.cp


def degrees(row: Row) -> Degrees:
    """Return the degrees of a row, checked against its accelerators.

    Raises:
        PlanError: where they contradict the row.
    """
    total, tp, pp = needed(row, "n_accelerators", "the number of accelerators"), whole(row, "tp"), whole(row, "pp")
    if tp is None or pp is None:
        raise PlanError("the layout is not given (tp or pp is empty)")
    cp, ep = whole(row, "cp") or 1, whole(row, "ep") or 1
    found = Degrees(dp=whole(row, "dp") or max(1, total // (tp * pp * cp)), tp=tp, pp=pp, cp=cp, ep=ep)
    if found.ranks != total:
        over = f" × cp={cp}" if cp > 1 else ""
        raise PlanError(f"dp={found.dp} × tp={tp} × pp={pp}{over} is {found.ranks}, but the row has {total} accelerators")
    return found


_GATHERS = r"torchtitan|MaxText|\bXLA\b|\bJAX\b|Meta internal"
"""Frameworks whose context parallelism gathers keys and values: torchtitan (`context_parallel_rotate_method = "allgather"`, its
default), MaxText (`context_parallel_strategy = "all_gather"`), Meta's Llama 3 (arXiv:2407.21783, section 3.3.2)."""
_SWAPS = r"Ulysses|DeepSpeed"


def context_mode(row: Row, cp: int) -> tuple[str, tuple[str, ...]]:
    """Return how the framework of a row joins the parts of a sequence, and what had to be assumed: a ring unless it is known better."""
    if cp == 1:
        return "ring", ()
    words = text(row, "framework")
    if re.search(_GATHERS, words, re.IGNORECASE):
        return "all-gather", ()
    if re.search(_SWAPS, words, re.IGNORECASE):
        return "ulysses", ()
    known = re.search(r"Megatron|NeMo|MCore", words, re.IGNORECASE)
    return "ring", () if known else (f"context parallelism of {words!r} taken as a ring",)
