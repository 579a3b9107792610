"""Random training jobs: small models, every schedule and way to shard, software that hides what it can or nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.models.model import Model
from foretrain.models.transformer import build, transformer_from_dimensions
from foretrain.sim.engine import Engine, Played
from foretrain.sim.lower import Lowered, lower
from foretrain.sim.placement import place
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.base import Schedule
from foretrain.sim.schedules.registry import SCHEDULES, schedule_by_name
from foretrain.sim.simulate import simulate
from foretrain.sim.steady import SteadyState
from foretrain.software.load import load_software
from foretrain.software.profile import Software
from tests.sim.hand import GPIPE, ONE_F_ONE_B

LOOPING = ("interleaved-1f1b", "looped-bfs", "interleaved-zb")
BENT = ("zb-v", "dualpipe-v")
"""Schedules that run several chunks per stage, and those that run exactly two."""
SOFTWARE = ("megatron-lm", "megatron-lm-2021", "pytorch-eager", "pytorch-fsdp", "torchtitan")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One job, before it is placed."""

    model: Model
    cluster: Cluster
    plan: Plan
    recipe: Recipe
    software: Software

    def with_plan(self, **changes: Any) -> Case:
        """Return the same job under a plan that differs."""
        return replace(self, plan=replace(self.plan, **changes))

    def predict(self, detail: str = "segment") -> Prediction:
        """Return the prediction."""
        return simulate(self.model, self.cluster, self.plan, self.recipe, software=self.software, detail=detail)

    def lowered(self) -> Lowered:
        """Return the job that the engine plays."""
        return lower(place(self.model, self.cluster, self.plan, self.recipe), self.software)

    def played(self, *, jump: bool = False, ops: bool = False) -> Played:
        """Return what a play leaves behind, by default of every micro-batch."""
        return Engine(self.lowered().job, ops=ops, watcher=SteadyState() if jump else None).play()


def gpt(*, layers: int, hidden: int = 512, heads: int = 8, vocab: int = 8192, seq_len: int = 256, family: str = "gpt") -> Model:
    """Return a small decoder."""
    return build(
        transformer_from_dimensions(family, name="small GPT", layers=layers, hidden=hidden, heads=heads, vocab=vocab, seq_len=seq_len)
    )


def quiet(software: Software) -> Software:
    """Return the software without overlap, so that nothing contends in symmetric jobs."""
    overlap = replace(software.overlap, gradient_reduce=False, parameter_gather=False, pipeline=False)
    return replace(software, overlap=overlap)


def rounds(schedule: Schedule) -> int:
    """Return how many micro-batches per stage a schedule needs at least."""
    return 2 if schedule.name in ("dualpipe", "dualpipe-v") else 1


@st.composite
def cases(draw: st.DrawFn, *, overlap: bool | None = None, dp: tuple[int, ...] = (1, 2, 4), most_microbatches: int = 12) -> Case:
    """Draw a job whose groups fill their nodes evenly."""
    tp, pp, replicas = draw(st.sampled_from((1, 2, 4))), draw(st.sampled_from((1, 2, 4))), draw(st.sampled_from(dp))
    schedule = schedule_by_name(draw(st.sampled_from([name for name in SCHEDULES if pp > 1 or name != "dualpipe"])))
    vpp = draw(st.sampled_from((1, 2))) if schedule.name in LOOPING and pp > 1 else 2 if schedule.name in BENT else 1
    fewest = rounds(schedule)
    microbatches = draw(st.integers(fewest, max(fewest, most_microbatches // pp))) * pp
    zero = draw(st.sampled_from((0, 1, 2, 3)))
    shard = draw(st.sampled_from([d for d in (1, 2, 4) if replicas % d == 0])) if zero and draw(st.booleans()) else None
    micro_batch = draw(st.sampled_from((1, 2)))
    plan = Plan(
        dp=replicas, tp=tp, pp=pp, vpp=vpp, zero=zero, shard=shard, sequence_parallel=tp > 1 and draw(st.booleans()),
        micro_batch=micro_batch, schedule=schedule, recompute=draw(st.sampled_from(("none", "selective", "full"))),
    )  # fmt: skip
    software = load_software(draw(st.sampled_from(SOFTWARE)))
    if overlap is False or (overlap is None and draw(st.booleans())):
        software = quiet(software)
    elif draw(st.booleans()):
        hidden = replace(software.overlap, gradient_reduce=True, parameter_gather=True, pipeline=True, gradient_bucket_bytes=4e6)
        software = replace(software, overlap=hidden)
    width = draw(st.sampled_from((256, 1024, 4096)))
    model = gpt(layers=pp * vpp * draw(st.integers(1, 3)), hidden=width, seq_len=draw(st.sampled_from((128, 1024))))
    return Case(
        model=model, cluster=load_cluster(f"dgx-a100-80gb:{-(-plan.ranks // 8)}"), plan=plan,
        recipe=Recipe(global_batch=replicas * micro_batch * microbatches), software=software,
    )  # fmt: skip


@st.composite
def irregular(draw: st.DrawFn) -> Case:
    """Draw a job whose tensor-parallel groups or replicas straddle nodes."""
    tp, pp, replicas = draw(st.sampled_from(((3, 2, 3), (3, 4, 5), (1, 2, 5), (2, 3, 3), (6, 2, 4), (1, 4, 3), (5, 2, 7))))
    microbatches = draw(st.integers(1, 8))
    software = load_software(draw(st.sampled_from(SOFTWARE)))
    plan = Plan(dp=replicas, tp=tp, pp=pp, zero=draw(st.sampled_from((0, 1, 2, 3))), schedule=draw(st.sampled_from((ONE_F_ONE_B, GPIPE))))
    model = gpt(layers=pp * draw(st.integers(1, 3)), hidden=tp * 256, heads=4 * tp, vocab=tp * 4096, seq_len=128)
    return Case(
        model=model, cluster=load_cluster(f"dgx-a100-80gb:{-(-plan.ranks // 8)}"), plan=plan,
        recipe=Recipe(global_batch=replicas * microbatches), software=quiet(software) if draw(st.booleans()) else software,
    )  # fmt: skip
