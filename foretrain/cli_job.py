"""From options to a job: profiles loaded, `--set` applied, what was left open filled in and said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from foretrain.cli_options import JobOptions, LayoutOptions
from foretrain.errors import ProfileError, UsageError, nearest, shortened
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.hardware.power import operated
from foretrain.models.architectures import build_model
from foretrain.models.load import load_model, load_spec
from foretrain.models.model import Model
from foretrain.models.tuning import ALL_LINEAR
from foretrain.overrides import apply_overrides
from foretrain.sim.fill import fill
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.interleaved import InterleavedOneForwardOneBackward
from foretrain.sim.schedules.one_f_one_b import OneForwardOneBackward
from foretrain.sim.schedules.registry import schedule_by_name
from foretrain.sim.simulate import DEFAULT_SOFTWARE
from foretrain.software.load import load_software
from foretrain.software.profile import Software
from foretrain.units import parse

ROOTS = ("plan", "recipe", "cluster", "software", "model")
TOKENS_PER_STEP = 2**22
SAMPLES_PER_STEP = 256
"""Batch that is assumed where none is given, in tokens: what large language models were trained with."""

Settings = Mapping[str, Mapping[str, str]]
Profile = TypeVar("Profile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that `simulate` takes, and what was assumed to make it whole."""

    model: Model
    cluster: Cluster
    software: Software
    plan: Plan
    recipe: Recipe
    assumed: tuple[str, ...]


def read_job(options: JobOptions, layout: LayoutOptions, *, dp: int | None, unfold: tuple[str, ...]) -> Job:
    """Return the job that the options describe; `dp` fills the cluster unless given.

    Raises:
        ForetrainError: where a name, a file, a value or the layout is wrong.
    """
    settings = read_settings(options.settings)
    model, cluster = read_model(options, settings), read_cluster(options, settings)
    plan = read_plan(layout, settings)
    if dp is not None:
        plan = replace(plan, dp=dp)
    elif "dp" not in settings["plan"]:
        plan = fill(plan, cluster)
    plan = replace(plan, unfold=plan.unfold | frozenset(unfold))
    recipe, assumed = read_recipe(options, settings, model, plan)
    software, assumed_software = read_software(options, settings)
    targets = (f"LoRA targets {ALL_LINEAR} (--lora-targets)",) if options.lora_rank is not None and options.lora_targets is None else ()
    assumed = (*assumed, *targets, *assumed_software)
    return Job(model=model, cluster=cluster, software=software, plan=plan, recipe=recipe, assumed=assumed)


def read_settings(settings: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Return `--set` options by root and path, as `{"cluster": {"node.usd_per_hour": "30"}, …}`."""
    found: dict[str, dict[str, str]] = {root: {} for root in ROOTS}
    for setting in settings:
        path, equals, value = setting.partition("=")
        root, dot, rest = path.strip().partition(".")
        if not equals or not dot or not rest:
            raise UsageError(f"--set {setting!r} sets nothing; write a path and a value, such as --set cluster.facility.pue=1.2")
        if root not in found:
            raise UsageError(f"--set {path}: {root!r} holds no fields; a path begins with {', '.join(ROOTS)}{nearest(root, ROOTS)}")
        found[root][rest] = value.strip()
    return found


def changed(profile: Profile, settings: Settings, root: str) -> Profile:
    """Return `profile` with the settings of its root applied; an error names the path as the user wrote it."""
    return apply_overrides(profile, settings[root], root)


def read_model(options: JobOptions, settings: Settings) -> Model:
    """Return the model at the sequence length of the options, with its dimensions overridden."""
    own = not settings["model"]
    model = load_model(options.model) if own else build_model(changed(load_spec(options.model), settings, "model"))
    wanted = {path: value for path, value in settings["recipe"].items() if path in ("seq_len", "image_size")}
    sizes = changed(Recipe(global_batch=1, seq_len=options.seq_len, image_size=options.image_size), {"recipe": wanted}, "recipe")
    return tuned(model.at_sequence(sizes.seq_len).at_image(sizes.image_size), options)


def tuned(model: Model, options: JobOptions) -> Model:
    """Return the model with what the options freeze frozen, and with their adapters.

    Raises:
        UsageError: where an option would change nothing.
        ModelError: for names that the model does not have.
    """
    if options.lora_rank is None and options.lora_targets is not None:
        raise UsageError("--lora-targets says where adapters go, but there are none; give --lora-rank, or leave it out")
    if options.lora_rank is not None and options.freeze is not None:
        raise UsageError("--freeze has nothing to freeze beside --lora-rank, which trains adapters only; leave one of them out")
    if options.freeze is not None:
        return model.frozen(*_names("--freeze", options.freeze))
    if options.lora_rank is None:
        return model
    return model.with_lora(options.lora_rank, _names("--lora-targets", options.lora_targets or ALL_LINEAR))


def _names(option: str, text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError(f"{option} {text!r} names nothing; give names with commas between them")
    return names


def read_cluster(options: JobOptions, settings: Settings, name: str | None = None) -> Cluster:
    """Return the cluster of the options, or another of the same machine by `name`, under their power cap and clock.

    Raises:
        ForetrainError: where there is no such cluster, or its accelerators cannot be operated so.
    """
    cluster = _with_grid(changed(load_cluster(options.cluster if name is None else name), settings, "cluster"), settings["cluster"])
    cap_w = read_quantity("--power-cap", options.power_cap, "W", "300W")
    clock_hz = read_quantity("--clock", options.clock, "Hz", "1200MHz")
    _refuse_twice(options, settings["cluster"])
    return operated(cluster, cap_w=cap_w, clock_hz=clock_hz) if cap_w is not None or clock_hz is not None else cluster


def read_quantity(option: str, text: str | None, unit: str, example: str) -> float | None:
    """Return what an option says in SI units; None where it was not given.

    Raises:
        UsageError: where it is no quantity of that unit.
    """
    if text is None:
        return None
    try:
        return parse(text, unit)
    except ProfileError:
        raise UsageError(f"{option} {shortened(text)} is no quantity in {unit}; give a number with its unit, such as {example}") from None


def _with_grid(cluster: Cluster, settings: Mapping[str, str]) -> Cluster:
    """Return the cluster with its grid named as the user's own where its carbon was set: the profile's source no longer holds."""
    carbon = settings.get("facility.co2_g_per_kwh")
    if carbon is None or "facility.grid" in settings:
        return cluster
    return replace(cluster, facility=replace(cluster.facility, grid=f"{cluster.facility.co2_g_per_kwh:g} g/kWh, as set"))


def _refuse_twice(options: JobOptions, settings: Mapping[str, str]) -> None:
    for option, value, path in (("--power-cap", options.power_cap, "cap_w"), ("--clock", options.clock, "clock_hz")):
        if value is not None and f"node.accelerator.power.{path}" in settings:
            raise UsageError(f"{option} and --set cluster.node.accelerator.power.{path} say the same thing twice; leave out one of them")


def read_plan(layout: LayoutOptions, settings: Settings) -> Plan:
    """Return the plan of the options with dp still 1 where `--set plan.dp` does not say otherwise."""
    plan = Plan(
        tp=layout.tp, pp=layout.pp, vpp=layout.vpp, zero=layout.zero, shard=layout.shard, sequence_parallel=layout.sequence_parallel,
        micro_batch=layout.micro_batch, recompute=layout.recompute, recompute_layers=layout.recompute_layers,
        cp=layout.cp, cp_mode=layout.cp_mode, cp_cut=layout.cp_cut, ep=layout.ep, expert_imbalance=layout.expert_imbalance,
        capacity_factor=layout.capacity_factor, gradient_sync=layout.gradient_sync,
        gradient_compression=layout.gradient_compression, offload=layout.offload,
        replication=layout.replication, local_steps=layout.local_steps, servers=layout.servers, order=layout.order,
        layers_per_stage=read_layers(layout.layers_per_stage), defer_embedding_wgrad=layout.defer_embedding_wgrad,
    )  # fmt: skip
    plan = changed(plan, {"plan": {path: value for path, value in settings["plan"].items() if path != "schedule"}}, "plan")
    name = settings["plan"].get("schedule", layout.schedule)
    if name is not None:
        return replace(plan, schedule=schedule_by_name(name))
    return replace(plan, schedule=InterleavedOneForwardOneBackward() if plan.vpp > 1 else OneForwardOneBackward())


def read_layers(text: str | None) -> tuple[int, ...] | None:
    """Return the layers of each chunk that an option counts; None where it was not given.

    Raises:
        UsageError: where it is no list of whole numbers.
    """
    if text is None:
        return None
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        said = f"--layers-per-stage {shortened(text)} is no list of layers"
        raise UsageError(f"{said}; give one number for each chunk, such as 7,8,8,7") from None


def read_recipe(options: JobOptions, settings: Settings, model: Model, plan: Plan) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe, and what was assumed of it: the batch, where nobody gave one."""
    batch, assumed = options.global_batch, tuple[str, ...]()
    if batch is None and "global_batch" not in settings["recipe"]:
        samples = plan.dp * plan.micro_batch
        items, said = (TOKENS_PER_STEP, "about 4 M tokens; ") if model.item == "token" else (SAMPLES_PER_STEP, "")
        batch = samples * max(1, round(items / (model.items_per_sample * samples)))
        assumed = (f"global batch {batch:,} ({said}--global-batch)",)
    recipe = Recipe(
        global_batch=1 if batch is None else batch, seq_len=options.seq_len, image_size=options.image_size,
        precision=options.precision, optimizer=options.optimizer,
        grad_dtype=options.grad_dtype, master_weights=options.master_weights, clip=options.clip,
    )  # fmt: skip
    return changed(recipe, settings, "recipe"), assumed


def read_software(options: JobOptions, settings: Settings) -> tuple[Software, tuple[str, ...]]:
    """Return the software, and what was assumed of it: which, where nobody said."""
    software = changed(load_software(DEFAULT_SOFTWARE if options.software is None else options.software), settings, "software")
    return software, () if options.software is not None else (f"software {software.name} (--software)",)
