"""The options of the commands, as frozen data: the groups that several commands share are written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from foretrain.sim.recipe import OPTIMIZERS


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What is trained, on which machine, with which software."""

    model: Annotated[str, typer.Option(help="Library name, or a profile.", metavar="NAME|FILE")]
    cluster: Annotated[str, typer.Option(help="Library name with a node count, or a profile.", metavar="NAME:NODES|FILE")]
    software: Annotated[str | None, typer.Option(help="Framework, by library name or file.", metavar="NAME|FILE")] = None
    global_batch: Annotated[int | None, typer.Option(help="Samples per step. [assumed: about 4 M tokens, or 256 images]")] = None
    seq_len: Annotated[int | None, typer.Option(help="Tokens per sequence. [default: the model's own]")] = None
    image_size: Annotated[int | None, typer.Option(help="Pixels a side of an image. [default: the model's own]")] = None
    precision: Annotated[str, typer.Option(help="fp32, tf32, fp16, bf16, fp8 (also fp8-rowwise and the like), mxfp8, nvfp4.")] = "bf16"
    optimizer: Annotated[str, typer.Option(help=f"{', '.join(OPTIMIZERS)}.")] = "adamw"
    grad_dtype: Annotated[str | None, typer.Option(help="Gradients in fp32, bf16 or fp16. [default: the framework's]")] = None
    master_weights: Annotated[
        bool | None, typer.Option("--master-weights/--no-master-weights", help="fp32 copy of 16-bit weights. [default: the framework's]")
    ] = None
    clip: Annotated[str | None, typer.Option(help="none, or global: with the norm's exchange. [default: the framework's]")] = None
    lora_rank: Annotated[int | None, typer.Option(help="Train adapters of this rank beside frozen weights.")] = None
    lora_targets: Annotated[
        str | None,
        typer.Option(help="Products with adapters: qkv,projection, q_proj,v_proj, … [default: all-linear]", metavar="NAME,NAME,…"),
    ] = None
    freeze: Annotated[
        str | None, typer.Option(help="Blocks not trained: embedding, layers, head or a block's name.", metavar="NAME,NAME,…")
    ] = None
    power_cap: Annotated[str | None, typer.Option(help="Power limit of each accelerator, such as 300W.", metavar="POWER")] = None
    clock: Annotated[str | None, typer.Option(help="Fixed clock of the compute units, such as 1200MHz.", metavar="FREQUENCY")] = None
    settings: Annotated[
        tuple[str, ...],
        typer.Option("--set", help="Any other field: plan., recipe., cluster., software. or model. Repeatable.", metavar="PATH=VALUE"),
    ] = ()
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn by chance.")] = 0


@dataclass(frozen=True, kw_only=True)
class LayoutOptions:
    """How it is laid out over the accelerators."""

    tp: Annotated[int, typer.Option(help="Tensor-parallel ranks.")] = 1
    pp: Annotated[int, typer.Option(help="Pipeline stages.")] = 1
    vpp: Annotated[int, typer.Option(help="Model chunks per stage (interleaving).")] = 1
    zero: Annotated[int, typer.Option(help="0 replicated; sharded: 1 optimizer, 2 gradients too, 3 all (FSDP).")] = 0
    shard: Annotated[int | None, typer.Option(help="Ranks that share one copy of the sharded state. [default: dp × cp]")] = None
    sequence_parallel: Annotated[bool, typer.Option("--sequence-parallel", help="Cut activations between tp ranks as well.")] = False
    schedule: Annotated[str | None, typer.Option(help="Pipeline schedule. [default: 1f1b, interleaved where vpp > 1]")] = None
    layers_per_stage: Annotated[
        str | None, typer.Option(help="Layers of each chunk, in the order of the model. [default: equal]", metavar="N,N,…")
    ] = None
    defer_embedding_wgrad: Annotated[
        bool, typer.Option("--defer-embedding-wgrad", help="Output layer's weight gradient at the end of the pipeline.")
    ] = False
    micro_batch: Annotated[int, typer.Option(help="Samples per micro-batch and replica.")] = 1
    recompute: Annotated[str, typer.Option(help="none, selective, full, attention, norms, activations; full:2 every 2nd layer.")] = "none"
    recompute_layers: Annotated[int | None, typer.Option(help="Layers of each model chunk that recompute. [default: all]")] = None
    gradient_sync: Annotated[
        str | None, typer.Option(help="Reduce gradients once a step (no_sync) or every micro-batch.", metavar="step|micro-batch")
    ] = None
    gradient_compression: Annotated[
        str | None, typer.Option(help="fp16, bf16, powersgd:4 or topk:0.01, between replicas.", metavar="METHOD")
    ] = None
    offload: Annotated[
        str | None, typer.Option(help="To the host: optimizer, parameters, activations.", metavar="PART,PART,…")
    ] = None
    replication: Annotated[
        str, typer.Option(help="Replicas are kept alike by: all-reduce, local-sgd, diloco, first-device, parameter-server.")
    ] = "all-reduce"
    local_steps: Annotated[int | None, typer.Option(help="Steps between exchanges, of local-sgd and diloco.")] = None
    servers: Annotated[int | None, typer.Option(help="Of a parameter-server. [default: one a node]")] = None
    order: Annotated[str, typer.Option(help="How ranks are numbered over the nodes, fastest dimension first.")] = "tp-dp-pp"
    cp: Annotated[int, typer.Option(help="Context-parallel ranks: each has a part of every sequence.")] = 1
    cp_mode: Annotated[str, typer.Option(help="How attention joins the parts: ring, all-gather or ulysses.")] = "ring"
    cp_cut: Annotated[str, typer.Option(help="balanced (a part from either end) or contiguous.")] = "balanced"
    ep: Annotated[int, typer.Option(help="Ranks of dp × cp that share the experts of a mixture.")] = 1
    expert_imbalance: Annotated[float, typer.Option(help="Tokens of the busiest expert-parallel rank over the mean.")] = 1.0
    capacity_factor: Annotated[float | None, typer.Option(help="Tokens that every rank's experts take, over the mean.")] = None


@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """What only a single prediction takes."""

    dp: Annotated[int | None, typer.Option(help="Data-parallel replicas. [default: fills the cluster]")] = None
    unfold: Annotated[tuple[str, ...], typer.Option(help="Simulate rank by rank: dp, tp or cp. Repeatable.", metavar="DIMENSION")] = ()
    slow: Annotated[
        tuple[str, ...],
        typer.Option(help="Slow rank=N:F, node=N:F (its devices) or link=N:F (its NICs), F times. Repeatable.", metavar="WHERE=N:F"),
    ] = ()
    jitter: Annotated[float, typer.Option(help="Spread of every pass, as sigma of its logarithm, such as 0.02.")] = 0.0
    samples: Annotated[int | None, typer.Option(help="Steps drawn under jitter. [default: 200]")] = None
    detail: Annotated[str, typer.Option(help="segment, or op: every kernel.")] = "segment"
    json: Annotated[bool, typer.Option("--json", help="Print the prediction as JSON, in SI units.")] = False
    out: Annotated[Path | None, typer.Option(help="Folder for report.json, timeline.json.gz, picture.png and .svg.", metavar="DIR")] = None


@dataclass(frozen=True, kw_only=True)
class ScalingOptions:
    """What only a scaling plot takes."""

    nodes: Annotated[str, typer.Option(help="Node counts, such as 1,2,4,8,16.", metavar="N,N,…")] = "1,2,4,8,16"
    mode: Annotated[str, typer.Option(help="strong, weak or both.")] = "both"
    json: Annotated[bool, typer.Option("--json", help="Print the points as JSON, in SI units.")] = False
    out: Annotated[Path, typer.Option(help="Folder for scaling.png, scaling.svg and scaling.csv.", metavar="DIR")] = Path("out")


@dataclass(frozen=True, kw_only=True)
class PowerOptions:
    """What only the plot of power and energy takes."""

    dp: Annotated[int | None, typer.Option(help="Data-parallel replicas. [default: fills the cluster]")] = None
    clocks: Annotated[str | None, typer.Option(help="Clocks to try. [default: a dozen, from the highest]", metavar="MHz,…")] = None
    caps: Annotated[str | None, typer.Option(help="Power caps to try. [default: eight, from the limit]", metavar="W,…")] = None
    json: Annotated[bool, typer.Option("--json", help="Print the points as JSON, in SI units.")] = False
    out: Annotated[Path, typer.Option(help="Folder for power.png, .svg, .csv, timeline.csv, stages.csv.", metavar="DIR")] = Path("out")


@dataclass(frozen=True, kw_only=True)
class RooflineOptions:
    """What a roofline takes: one accelerator, and a model where its kernels are wanted."""

    accelerator: Annotated[str, typer.Option(help="Library name, or a profile.", metavar="NAME|FILE")]
    model: Annotated[str | None, typer.Option(help="Library name, or a profile: its kernels as points.", metavar="NAME|FILE")] = None
    software: Annotated[str | None, typer.Option(help="Framework, by library name or file.", metavar="NAME|FILE")] = None
    precision: Annotated[str | None, typer.Option(help="Of the kernels. [default: bf16, else fp16]")] = None
    micro_batch: Annotated[int, typer.Option(help="Samples per micro-batch.")] = 1
    seq_len: Annotated[int | None, typer.Option(help="Tokens per sequence. [default: the model's own]")] = None
    json: Annotated[bool, typer.Option("--json", help="Print roofs and kernels as JSON, in SI units.")] = False
    out: Annotated[Path, typer.Option(help="Folder for roofline.png, roofline.svg and roofline.csv.", metavar="DIR")] = Path("out")


@dataclass(frozen=True, kw_only=True)
class CollectiveOptions:
    """What the curve of a collective takes."""

    cluster: Annotated[str, typer.Option(help="NODE:COUNT, a cluster, or a profile.", metavar="NAME[:NODES]|FILE")]
    collective: Annotated[str, typer.Option(help="all_reduce, all_gather, reduce_scatter, all_to_all or broadcast.")] = "all_reduce"
    ranks: Annotated[int | None, typer.Option(help="Accelerators that take part. [default: all]")] = None
    json: Annotated[bool, typer.Option("--json", help="Print the points as JSON, in SI units.")] = False
    out: Annotated[Path, typer.Option(help="Folder for collective.png, collective.svg and collective.csv.", metavar="DIR")] = Path("out")


@dataclass(frozen=True, kw_only=True)
class ComparedJobOptions(JobOptions):
    """The same as of any job, but a measured case brings its own model."""

    model: Annotated[str, typer.Option(help="Library name, or a profile; not where a case is compared.", metavar="NAME|FILE")] = ""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What only a comparison takes."""

    file: Annotated[Path, typer.Argument(help="Trace of torch.profiler, or measurements (.jsonl).", metavar="TRACE.json|RECORDS.jsonl")]
    case: Annotated[str | None, typer.Option(help="Measured case that the trace is of.", metavar="RECORDS.jsonl:NAME")] = None
    step: Annotated[int | None, typer.Option(help="Number of the trace's step. [default: that of median length]")] = None
    dp: Annotated[int | None, typer.Option(help="Data-parallel replicas. [default: fills the cluster]")] = None
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON, in SI units.")] = False
    out: Annotated[Path | None, typer.Option(help="Folder for the report, and merged.json.gz or a picture.", metavar="DIR")] = None


@dataclass(frozen=True, kw_only=True)
class TraceOptions:
    """What a trace takes."""

    factory: Annotated[str, typer.Argument(help="Function or class that builds the module.", metavar="PACKAGE.MODULE:FACTORY")]
    input: Annotated[tuple[str, ...], typer.Option(help="Shape of an input, samples first. Repeatable.", metavar="NxCxHxW")] = ()
    input_dtype: Annotated[tuple[str, ...], typer.Option(help="Its dtype, such as int64. [default: float32]", metavar="DTYPE")] = ()
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON, in SI units.")] = False
    out: Annotated[Path | None, typer.Option(help="Profile to write, for simulate --model.", metavar="FILE.yaml|json")] = None


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """What a calibration takes."""

    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where torch sees one.")] = "auto"
    budget: Annotated[str, typer.Option(help="How long to measure, such as 60s or 5min; the most telling first.", metavar="TIME")] = "120s"
    ranks: Annotated[int | None, typer.Option(help="Ranks that run together. [default: 2 cores, or every GPU]")] = None
    measurements: Annotated[
        Path | None, typer.Option(help="Measurements to go on with, or to fit with --replay. [default: in --out]", metavar="FILE.jsonl")
    ] = None
    replay: Annotated[bool, typer.Option("--replay", help="Measure nothing: fit what --measurements holds.")] = False
    runs: Annotated[Path | None, typer.Option(help="Own measured steps, in the format of published runs.", metavar="RUNS.csv")] = None
    cluster: Annotated[str | None, typer.Option(help="Node or cluster to start from. [default: by the device]", metavar="NAME|FILE")] = None
    software: Annotated[str | None, typer.Option(help="Software to start from. [default: by the device]", metavar="NAME|FILE")] = None
    name: Annotated[str | None, typer.Option(help="Name of the profiles. [default: that of the device]")] = None
    out: Annotated[Path, typer.Option(help="Folder for measurements, profiles and report.", metavar="DIR")] = Path("calibrated")
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """What the trainer takes: a suite, or one case."""

    suite: Annotated[str | None, typer.Option(help="Cases to run: quick. Instead of --model.", metavar="NAME")] = None
    model: Annotated[str | None, typer.Option(help="gpt:layers=4,…, mlp:…, resnet:…, or a factory.", metavar="NET|MODULE:FACTORY")] = None
    sample: Annotated[str | None, typer.Option(help="Shape of one sample of a factory's module: 3x224x224.", metavar="CxHxW")] = None
    sample_dtype: Annotated[str, typer.Option(help="Its dtype, such as int64.", metavar="DTYPE")] = "float32"
    plan: Annotated[str, typer.Option(help="Layout, such as dp=2,zero=3 or pp=2,schedule=gpipe,micro_batch=4.", metavar="A=1,B=2")] = ""
    world_size: Annotated[int | None, typer.Option(help="Processes. [default: the plan's; of a suite 2, or every GPU]")] = None
    global_batch: Annotated[int | None, typer.Option(help="Samples per step. [default: dp × micro_batch × pp]")] = None
    precision: Annotated[str, typer.Option(help="fp32, tf32, bf16 or fp16 (autocast).")] = "fp32"
    optimizer: Annotated[str, typer.Option(help="sgd, momentum, nesterov, adagrad, adam or adamw.")] = "adamw"
    clip: Annotated[str | None, typer.Option(help="global: gradients by their norm.", metavar="none|global")] = None
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto"
    framework: Annotated[str, typer.Option(help="torch, jax or tensorflow.")] = "torch"
    software: Annotated[str, typer.Option(help="Whose gradient buckets DDP fills.", metavar="NAME|FILE")] = "pytorch-eager"
    compiled: Annotated[bool, typer.Option("--compile", help="Run under torch.compile.")] = False
    seconds: Annotated[float | None, typer.Option(help="Repeats of a case, in seconds. [default: 4 on a cpu, 3 on a GPU]")] = None
    energy: Annotated[bool, typer.Option("--energy", help="Measure joules too: 6 s more a case.")] = False
    trace: Annotated[Path | None, typer.Option(help="Folder for a Chrome trace of one step of each case.", metavar="DIR")] = None
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0
    out: Annotated[Path, typer.Option(help="Measurements, appended to; a next start resumes.", metavar="FILE")] = Path("measurements.jsonl")
    json: Annotated[bool, typer.Option("--json", help="Print the records as JSON, in SI units.")] = False


def takes(*groups: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options of `groups`; the command receives one object a group, in that order."""
    hints = {name: hint for group in groups for name, hint in get_type_hints(group, include_extras=True).items()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            command(*(group(**{one.name: _frozen(values[one.name]) for one in fields(group)}) for group in groups))

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {name: _listed(hint) for name, hint in hints.items()}
        run.__signature__ = _signature(groups, run.__annotations__)  # type: ignore[attr-defined]
        return run

    return decorate


def _signature(groups: tuple[type[Any], ...], hints: dict[str, Any]) -> inspect.Signature:
    parameters = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=_default(one.default), annotation=hints[one.name])
        for group in groups
        for one in fields(group)
    ]
    return inspect.Signature(parameters)


def _default(value: Any) -> Any:
    if value is MISSING:
        return inspect.Parameter.empty
    return list(value) if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(hint: Any) -> Any:
    """Return the hint as typer knows repeatable options: a list, which is frozen again before a command sees it."""
    if getattr(hint, "__origin__", None) == tuple[str, ...]:
        return Annotated[list[str], *hint.__metadata__]
    return hint
