"""What the single-node trainers of other frameworks run; everything else is refused with its reason and a remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from foretrain.errors import PlanError, RecipeError, UsageError
from foretrain.sim.plan import Plan
from foretrain.validate.case import Case
from foretrain.validate.training.second_optimizers import RULES
from foretrain.validate.training.second_weights import RESNET_BLOCKS

LEAST_IMAGE = 32
CUT: Mapping[str, tuple[str, ...]] = {"mlp": ("width", "classes"), "gpt": ("heads", "vocab")}
"""Sizes that tensor-parallel ranks share."""
TORCH = "or --framework torch, which runs it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """What one trainer runs: fields of a plan that it heeds, stages of sharding, and why others and compilation are not its own."""

    plan: frozenset[str]
    zero: tuple[int, ...]
    lacks: str
    compiled: str


TRAINERS: Mapping[str, Trainer] = {
    "jax": Trainer(
        plan=frozenset({"dp", "tp", "zero", "micro_batch", "gradient_sync", "unfold"}),
        zero=(0, 3),
        lacks="the jax trainer shards over one node by dp, tp and zero=3",
        compiled="jax compiles every step; leave it out",
    ),
    "tensorflow": Trainer(
        plan=frozenset({"dp", "micro_batch", "gradient_sync", "unfold"}),
        zero=(0,),
        lacks="tf.distribute.MirroredStrategy replicates over dp alone",
        compiled="the profile of TensorFlow is for graphs without XLA; leave it out, or use --framework jax for XLA",
    ),
}


def check_second(case: Case, device: str) -> None:
    """Refuse what the trainer of a case's framework does not run on a kind of device.

    Raises:
        PlanError, RecipeError, UsageError: with the reason and a remedy.
    """
    trainer = TRAINERS[case.backend]
    _plan(case, trainer)
    _batch(case)
    _recipe(case, device)
    if case.compiled:
        raise UsageError(f"compiled: {trainer.compiled}")
    if case.net.kind == "module":
        raise UsageError(f"{case.net.factory} is a torch module, which {case.backend} cannot run; use mlp, resnet or gpt, {TORCH}")
    _net(case)


def _plan(case: Case, trainer: Trainer) -> None:
    plain = Plan()
    for name in (one.name for one in fields(Plan)):
        value = getattr(case.plan, name)
        same = value.name == plain.schedule.name if name == "schedule" else value == getattr(plain, name)
        if not same and name not in trainer.plan:
            text = getattr(value, "name", value)
            raise PlanError(f"{name}={text} is not run by {case.backend}: {trainer.lacks}; leave it out, {TORCH}")
    if case.plan.zero not in trainer.zero:
        known = " or ".join(f"zero={one}" for one in trainer.zero)
        raise PlanError(f"zero={case.plan.zero} is not run by {case.backend}: {trainer.lacks}; use {known}, {TORCH}")


def _net(case: Case) -> None:
    net, tp = case.net, case.plan.tp
    sizes = net.sizes
    if net.kind == "gpt" and sizes["hidden"] % sizes["heads"]:
        raise UsageError(f"gpt:heads={sizes['heads']} does not divide hidden={sizes['hidden']}; give a multiple of it")
    if net.kind == "resnet" and sizes["depth"] not in RESNET_BLOCKS:
        raise UsageError(f"resnet:depth={sizes['depth']} is none; use one of {', '.join(map(str, RESNET_BLOCKS))}")
    if net.kind == "resnet" and sizes["image"] < LEAST_IMAGE:
        raise UsageError(f"resnet:image={sizes['image']} leaves nothing after five halvings; give at least {LEAST_IMAGE} pixels a side")
    if tp > 1 and net.kind == "resnet":
        raise PlanError(f"tp={tp} cannot cut resnet, whose convolutions stay whole; use dp or zero=3, or one of {', '.join(CUT)}")
    for name in CUT.get(net.kind, ()) if tp > 1 else ():
        if sizes[name] % tp:
            raise PlanError(f"tp={tp} does not divide {net.kind}:{name}={sizes[name]}; use a divisor, or a multiple of {tp}")


def _batch(case: Case) -> None:
    share = case.plan.dp * case.plan.micro_batch
    if case.recipe.global_batch % share:
        raise PlanError(
            f"global batch {case.recipe.global_batch} does not divide into dp={case.plan.dp} times micro_batch={case.plan.micro_batch}; "
            f"use a multiple of {share}"
        )


def _recipe(case: Case, device: str) -> None:
    recipe = case.recipe
    known = ("fp32", "bf16") if device == "cpu" else ("fp32", "tf32", "bf16")
    if recipe.precision not in known:
        raise RecipeError(f"precision {recipe.precision} is not run by {case.backend} on {device}; use {', '.join(known)}")
    if recipe.optimizer not in RULES:
        raise RecipeError(f"optimizer {recipe.optimizer} is not run by {case.backend}; use one of {', '.join(RULES)}, {TORCH}")
    if recipe.grad_dtype not in (None, "fp32") or recipe.master_weights is False:
        raise RecipeError(f"{case.backend} keeps weights and gradients in fp32; leave grad_dtype and master_weights out, {TORCH}")
    for name, size in (("seq_len", "seq"), ("image_size", "image")):
        asked, own = getattr(recipe, name), case.net.sizes.get(size)
        if asked is not None and asked != own:
            raise RecipeError(f"{name}={asked} is not that of the network, {own}; give {case.net.kind}:{size}={asked}, or leave it out")
