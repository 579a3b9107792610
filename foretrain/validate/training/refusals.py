"""What the torch trainer cannot run, said before anything starts."""

from __future__ import annotations

from collections.abc import Iterator

from foretrain.errors import ForetrainError, PlanError, RecipeError, UsageError
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.recompute_share import recompute_share
from foretrain.sim.replication import ALL_REDUCE, FIRST_DEVICE
from foretrain.validate.case import Case
from foretrain.validate.devices import DEVICES
from foretrain.validate.training.refusals_cut import Rule, pipeline_rules, tensor_rules
from foretrain.validate.training.sizes import check_net

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "adam", "adamw")


def check_case(case: Case, device: str) -> None:
    """Refuse a case that torch cannot run as it is.

    Raises:
        PlanError, RecipeError, UsageError: naming the option, the reason and the remedy.
    """
    check_net(case.net)
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is unknown; use {' or '.join(DEVICES)}")
    if case.backend != "torch":
        raise UsageError(f"backend={case.backend} is not torch; this trainer runs cases of backend torch")
    for rules in (_absent, _batch, _replicas, _sharding, tensor_rules, pipeline_rules, _recompute):
        for broken, words in rules(case, case.plan):
            if broken:
                raise PlanError(words)
    for broken, words in (*_recipe(case, device), *_precision(case.plan, case.recipe, device)):
        if broken:
            raise RecipeError(words)


def reason(case: Case, device: str) -> str:
    """Return why a case cannot run, empty where it can."""
    try:
        check_case(case, device)
    except ForetrainError as error:
        return str(error)
    return ""


def processes(plan: Plan) -> int:
    """Return how many processes run a plan: one a rank, but a single one for all devices of torch.nn.DataParallel."""
    return 1 if plan.replication == FIRST_DEVICE else plan.ranks


def _absent(case: Case, plan: Plan) -> Iterator[Rule]:
    """Yield what this trainer has no way to do."""
    del case
    absent = {
        "cp": (plan.cp > 1, "torch has no context parallelism for modules as they are; use cp=1"),
        "ep": (plan.ep > 1, "no network here has experts; use ep=1"),
        "offload": (plan.offload is not None, "state stays on the device here; leave it out"),
        "defer_embedding_wgrad": (plan.defer_embedding_wgrad, "that is Megatron-Core's; leave it out"),
        "recompute_layers": (plan.recompute_layers is not None, "torch checkpoints blocks one by one; use recompute=full or full:2"),
        "replication": (plan.replication not in (ALL_REDUCE, FIRST_DEVICE), f"use {ALL_REDUCE} or {FIRST_DEVICE}"),
    }
    for name, (given, words) in absent.items():
        yield given, f"{name}={getattr(plan, name)} cannot be run by the trainer: {words}"


def _batch(case: Case, plan: Plan) -> Iterator[Rule]:
    batch, at_once = case.recipe.global_batch, plan.dp * plan.micro_batch
    uneven = f"dp={plan.dp} × micro_batch={plan.micro_batch} does not divide the global batch {batch}; give a multiple of {at_once}"
    yield batch % at_once > 0, uneven
    whole = plan.replication == FIRST_DEVICE and case.microbatches > 1
    yield whole, f"replication={FIRST_DEVICE} takes a step's batch at once; use micro_batch={batch // plan.dp}"


def _replicas(case: Case, plan: Plan) -> Iterator[Rule]:
    """Yield ways to keep replicas alike that torch has not."""
    del case
    words = plan.gradient_compression or ""
    yield words.startswith("topk"), f"gradient_compression={words} has no hook in torch; use fp16, bf16 or powersgd:RANK"
    yield bool(words) and plan.dp == 1, f"gradient_compression={words} is for replicas, but dp=1; raise dp or leave it out"
    alone = plan.replication == FIRST_DEVICE and plan.dp == 1
    yield alone, f"replication={FIRST_DEVICE} is for replicas, but dp=1; raise dp or leave it out"


def _sharding(case: Case, plan: Plan) -> Iterator[Rule]:
    """Yield what shards state, where torch does not."""
    one, cut = plan.zero == 1, plan.tp > 1 or plan.pp > 1
    yield plan.zero > 0 and plan.dp == 1, f"zero={plan.zero} shards over replicas, but dp=1; raise dp, or use zero 0"
    yield one and cut, f"zero=1 is torch's ZeroRedundancyOptimizer, not for models cut by tp={plan.tp} or pp={plan.pp}; use zero 0, 2 or 3"
    yield one and plan.shards != plan.dp, f"shard={plan.shard} with zero=1: torch shards over all {plan.dp} replicas; leave shard out"
    early = one and case.recipe.optimizer == "adagrad"
    yield early, "optimizer adagrad with zero=1: torch shards no state that exists from the start; use zero 0"
    yield plan.zero >= 2 and plan.dp % plan.shards > 0, f"shard={plan.shard} does not divide dp={plan.dp}; give a divisor"


def _recompute(case: Case, plan: Plan) -> Iterator[Rule]:
    policy = recompute_share(plan.recompute).policy
    other = f"recompute={plan.recompute} is not run by the trainer, which checkpoints whole blocks; use none, full or full:2"
    yield policy not in ("none", "full"), other
    whole = policy == "full" and case.net.kind == "module"
    yield whole, f"recompute={plan.recompute}: nobody says what the blocks of {case.net.text} are; use none"


def _recipe(case: Case, device: str) -> Iterator[Rule]:
    recipe, plan = case.recipe, case.plan
    for what, value, known in (("precision", recipe.precision, PRECISIONS), ("optimizer", recipe.optimizer, OPTIMIZERS)):
        yield value not in known, f"{what} {value} is not run by the trainer; use one of {', '.join(known)}"
    yield recipe.master_weights is not None, "master weights are not for the trainer, whose weights are fp32 under autocast; leave them out"
    half = recipe.grad_dtype not in (None, "fp32") and plan.zero < 2
    yield half, f"grad-dtype {recipe.grad_dtype} is FSDP's here, but zero={plan.zero}; use gradient_compression={recipe.grad_dtype}"
    hidden = recipe.clip == "global" and plan.tp > 1 and plan.dp > 1 and plan.zero == 0
    yield hidden, "clip global with tp and dp: DistributedDataParallel hides how parameters are cut, and so their norm; use zero=2 or 3"
    for name, own in (("seq_len", "seq"), ("image_size", "image")):
        value, size = getattr(recipe, name), case.net.sizes.get(own)
        other = value is not None and value != size
        yield other, f"{name}={value} is not that of {case.net.text}; leave it out, or give the network {own}={value}"
    both = plan.replication == FIRST_DEVICE and case.compiled
    yield both, f"replication={FIRST_DEVICE} copies modules in every step, which undoes their compilation; leave out compile, or use dp"
    gpus = device == "cpu" and plan.replication == FIRST_DEVICE
    yield gpus, f"replication={FIRST_DEVICE} is torch.nn.DataParallel, which needs GPUs; leave it out on a cpu"


def _precision(plan: Plan, recipe: Recipe, device: str) -> Iterator[Rule]:
    cpu = device == "cpu"
    yield cpu and recipe.precision == "tf32", "precision tf32 is of NVIDIA GPUs; use fp32, bf16 or fp16 on a cpu"
    yield cpu and plan.gradient_compression == "bf16", "gradient_compression=bf16 is a hook for NCCL in torch; use fp16 on a cpu"
    scaled = recipe.precision == "fp16" and (plan.tp > 1 or plan.pp > 1 or plan.zero >= 1)
    yield scaled, "precision fp16 needs a gradient scaler, which torch has for whole models; use bf16, or tp=1, pp=1 and zero 0"
