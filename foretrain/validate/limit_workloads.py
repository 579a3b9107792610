"""What is simulated for a measured sweep over power limits: network and data set as a model of the library, the GPU as a node of one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from foretrain.errors import ModelError, ProfileError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.hardware.power import operated
from foretrain.models.load import load_model
from foretrain.models.model import Model
from foretrain.sim.plan import Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.validate.cells import Row, needed, text
from foretrain.validate.chips import accelerator_named
from foretrain.validate.machines import resized

SOFTWARE = "pytorch-1.10"
NODE = "pcie-4x-a40"
"""A node to put the GPU into; what stands beside it does not count."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A network on a data set as a model of the library, at the size of its samples."""

    network: str
    dataset: str
    model: str
    seq_len: int | None = None
    image_size: int | None = None
    note: str = ""


WORKLOADS = (
    Workload("shufflenet", "cifar", "shufflenet-v2", image_size=128, note="stem of 32 x 32 images taken as that of 128 x 128"),
    Workload("shufflenet", "", "shufflenet-v2", image_size=224),
    Workload("resnet-?50", "", "resnet-50", image_size=224),
    Workload("bert_?base", "squad", "bert-base-classifier", seq_len=384, note="384 tokens a sample"),
    Workload("bert_?base", "sentiment", "bert-base-classifier", seq_len=64, note="64 tokens a sample"),
    Workload("deepspeech2?", "", "deepspeech2", seq_len=1230, note="utterances of 12.3 s, the mean of LibriSpeech's 960 hours"),
    Workload("ncf|neumf", "1m", "ncf-movielens-1m"),
    Workload("ncf|neumf", "", "ncf"),
)
"""In order of priority: the first whose words occur decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One training job that can be played under any power limit."""

    model: Model
    cluster: Cluster
    plan: Plan
    recipe: Recipe
    assumed: tuple[str, ...]

    def at(self, limit_w: float) -> Prediction:
        """Return a step under a power limit; the accelerator's own limit or more changes nothing.

        Raises:
            ForetrainError: where the accelerator cannot be limited so.
        """
        power = self.cluster.accelerator.power
        cluster = self.cluster if limit_w >= power.limit_w else operated(self.cluster, cap_w=limit_w)
        return simulate(self.model, cluster, self.plan, self.recipe, software=load_software(SOFTWARE))


def sweep_of(row: Row) -> Sweep:
    """Return the job that a row of a sweep trains.

    Raises:
        ForetrainError: where network or GPU is unknown.
    """
    workload = _workload(text(row, "network"), text(row, "dataset"))
    chip, notes = accelerator_named(re.sub(r"\([^)]*\)", " ", text(row, "gpu")))
    cluster = load_cluster(f"{NODE}:1")
    batch = needed(row, "batch_size", "the batch")
    precision = "tf32" if "tf32" in chip.peak_flop_per_s else "fp32"
    said = (f"{precision}: the default of PyTorch 1.10", *((workload.note,) if workload.note else ()), *notes)
    return Sweep(
        model=load_model(workload.model).at_sequence(workload.seq_len).at_image(workload.image_size),
        cluster=resized(replace(cluster, node=replace(cluster.node, accelerator=chip)), 1),
        plan=Plan(micro_batch=batch),
        recipe=Recipe(global_batch=batch, precision=precision, optimizer=_optimizer(text(row, "optimizer"))),
        assumed=said,
    )


def _workload(network: str, dataset: str) -> Workload:
    if not network:
        raise ModelError("network is not given")
    for workload in WORKLOADS:
        if re.search(workload.network, network, re.IGNORECASE) and re.search(workload.dataset, dataset, re.IGNORECASE):
            return workload
    raise ModelError(f"network {network!r} on {dataset!r} is not in this release's library")


def _optimizer(words: str) -> str:
    known = {name: name for name in ("adadelta", "adam", "adamw", "sgd", "momentum")}
    if words.lower() not in known:
        raise ProfileError(f"optimizer {words!r} is unknown; use one of {', '.join(known)}")
    return known[words.lower()]
