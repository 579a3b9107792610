"""What the torch trainer cannot run, said before anything starts."""

from __future__ import annotations

from foretrain.errors import ForetrainError, PlanError, RecipeError, UsageError
from foretrain.sim.plan import Plan
from foretrain.sim.recompute_share import recompute_share
from foretrain.sim.replication import ALL_REDUCE, FIRST_DEVICE
from foretrain.validate.case import SIZES, Case

DEVICES = ("cpu", "cuda")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "adam", "adamw")
SCHEDULES = ("gpipe", "1f1b", "interleaved-1f1b", "looped-bfs", "zb-h1", "interleaved-zb", "zb-v", "dualpipe-v")
"""Of torch.distributed.pipelining; its interleaved zero bubble with one chunk a stage is zb-h1."""
ONE_CHUNK = ("gpipe", "1f1b", "zb-h1")
CUT_BY_TENSOR = ("mlp", "gpt")


def check_case(case: Case, device: str) -> None:
    """Refuse a case that torch cannot run as it is.

    Raises:
        PlanError, RecipeError, UsageError: naming the option, the reason and the remedy.
    """
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is unknown; use {' or '.join(DEVICES)}")
    if case.backend != "torch":
        raise UsageError(f"backend={case.backend} is not torch; this trainer runs cases of backend torch")
    plan = case.plan
    for check in (_absent, _replicas, _tensor, _pipeline, _recompute):
        check(case, plan)
    _batch(case)
    _recipe(case, device)


def blocks_in(case: Case) -> int | None:
    """Return how many blocks a network repeats, None where only its module knows."""
    name = {"mlp": "depth", "gpt": "layers"}.get(case.net.kind)
    if name is not None:
        return case.net.sizes[name]
    return {18: 8, 34: 16, 50: 16}[case.net.sizes["depth"]] if case.net.kind == "resnet" else None


def processes(plan: Plan) -> int:
    """Return how many processes run a plan: one a rank, but a single one for all devices of torch.nn.DataParallel."""
    return 1 if plan.replication == FIRST_DEVICE else plan.ranks


def _absent(case: Case, plan: Plan) -> None:
    """Refuse what this trainer has no way to do."""
    del case
    absent = {
        "cp": (plan.cp > 1, "torch has no context parallelism for modules as they are", "use cp=1"),
        "ep": (plan.ep > 1, "no network here has experts", "use ep=1"),
        "offload": (plan.offload is not None, "state stays on the device here", "leave it out"),
        "defer_embedding_wgrad": (plan.defer_embedding_wgrad, "that is Megatron-Core's", "leave it out"),
        "recompute_layers": (plan.recompute_layers is not None, "torch checkpoints blocks one by one", "use recompute=full or full:2"),
        "servers": (plan.servers is not None, "torch has no parameter servers", "leave it out"),
    }
    for name, (given, reason, remedy) in absent.items():
        if given:
            raise PlanError(f"{name}={getattr(plan, name)} cannot be run by the trainer: {reason}; {remedy}")
    if plan.replication not in (ALL_REDUCE, FIRST_DEVICE):
        raise PlanError(f"replication={plan.replication} cannot be run by the trainer; use {ALL_REDUCE} or {FIRST_DEVICE}")


def _replicas(case: Case, plan: Plan) -> None:
    """Refuse ways to keep replicas alike that torch does not combine."""
    if plan.gradient_compression is not None and plan.gradient_compression.startswith("topk"):
        raise PlanError(f"gradient_compression={plan.gradient_compression} has no hook in torch; use fp16, bf16 or powersgd:RANK")
    if plan.gradient_compression is not None and plan.pp > 1:
        raise PlanError(f"gradient_compression={plan.gradient_compression} with pp={plan.pp} is not run here; use pp=1")
    if plan.zero == 1 and (plan.tp > 1 or plan.pp > 1):
        raise PlanError(f"zero=1 is torch's ZeroRedundancyOptimizer, which takes no model cut by tp={plan.tp} or pp={plan.pp}; use zero 0, 2 or 3")
    if plan.zero == 1 and plan.shards != plan.dp:
        raise PlanError(f"shard={plan.shard} with zero=1: torch's ZeroRedundancyOptimizer shards over all {plan.dp} replicas; leave shard out")
    if plan.zero >= 2 and plan.dp % plan.shards:
        raise PlanError(f"shard={plan.shard} does not divide dp={plan.dp}; give a divisor")
    if plan.gradient_sync == "micro-batch" and plan.pp > 1 and plan.zero == 0:
        raise PlanError("gradient_sync=micro-batch with pp: torch's pipelines reduce gradients of replicas once a step; leave it out")
    if case.recipe.optimizer == "adagrad" and plan.zero == 1:
        raise PlanError("optimizer adagrad keeps its state from the start, which zero=1 does not shard in torch; use zero 0, 2 or 3")


def _tensor(case: Case, plan: Plan) -> None:
    """Refuse cuts by tensor that the network does not take."""
    if plan.sequence_parallel and plan.tp == 1:
        raise PlanError("sequence_parallel cuts what tensor parallelism leaves whole, but tp=1; raise tp or leave it out")
    if plan.tp == 1:
        return
    if case.net.kind not in CUT_BY_TENSOR:
        why = "its convolutions have no tensor-parallel layout in torch" if case.net.kind == "resnet" else "nobody says how its layers pair up"
        raise PlanError(f"tp={plan.tp} cannot cut {case.net.kind}: {why}; use dp, zero or pp, or one of {', '.join(CUT_BY_TENSOR)}")
    sizes = case.net.sizes
    for name in {"mlp": ("width", "classes"), "gpt": ("heads", "hidden", "vocab", *(("seq",) if plan.sequence_parallel else ()))}[case.net.kind]:
        if sizes[name] % plan.tp:
            raise PlanError(f"tp={plan.tp} does not divide {case.net.kind}:{name}={sizes[name]}; give a multiple of it")
    if case.net.kind == "mlp" and plan.sequence_parallel and plan.micro_batch % plan.tp:
        raise PlanError(f"sequence_parallel cuts the {plan.micro_batch} rows of a micro-batch by tp={plan.tp}; give a multiple as micro_batch")


def _pipeline(case: Case, plan: Plan) -> None:
    """Refuse pipelines that torch has not, and cuts that the network does not take."""
    chunks = plan.pp * plan.vpp
    if plan.pp == 1:
        if plan.vpp > 1 or plan.layers_per_stage is not None:
            raise PlanError(f"vpp={plan.vpp} and layers_per_stage are of pipelines, but pp=1; raise pp or leave them out")
        return
    name = plan.schedule.name
    if name not in SCHEDULES:
        raise PlanError(f"schedule {name} is not in torch.distributed.pipelining; use one of {', '.join(SCHEDULES)}")
    if name in ONE_CHUNK and plan.vpp > 1:
        raise PlanError(f"schedule {name} has one chunk a stage, but vpp={plan.vpp}; use interleaved-1f1b, or vpp=1")
    if name not in ONE_CHUNK and plan.vpp == 1:
        raise PlanError(f"schedule {name} needs several chunks a stage, but vpp=1; use vpp=2, or one of {', '.join(ONE_CHUNK)}")
    blocks = blocks_in(case)
    if blocks is None:
        raise PlanError(f"pp={plan.pp} cannot cut {case.net.factory}: nobody says where its stages begin; use one of {', '.join(list(SIZES)[:3])}")
    given = plan.layers_per_stage
    if given is None and blocks % chunks:
        raise PlanError(f"pp={plan.pp} × vpp={plan.vpp} does not divide the {blocks} blocks of {case.net.text}; give layers_per_stage")
    if given is not None and (len(given) != chunks or sum(given) != blocks):
        raise PlanError(f"layers_per_stage={'+'.join(map(str, given))} is not {chunks} numbers that sum to {blocks} blocks of {case.net.text}")


def _recompute(case: Case, plan: Plan) -> None:
    share = recompute_share(plan.recompute)
    if share.policy not in ("none", "full"):
        raise PlanError(f"recompute={plan.recompute} is not run by the trainer, which checkpoints whole blocks; use none, full or full:2")
    if share.policy == "full" and case.net.kind == "module":
        raise PlanError(f"recompute={plan.recompute}: nobody says what the blocks of {case.net.factory} are; use none")


def _batch(case: Case) -> None:
    plan, batch = case.plan, case.recipe.global_batch
    if batch % (plan.dp * plan.micro_batch):
        raise PlanError(f"dp={plan.dp} × micro_batch={plan.micro_batch} does not divide the global batch {batch}; give a multiple of {plan.dp * plan.micro_batch}")
    if plan.replication == FIRST_DEVICE and case.microbatches > 1:
        raise PlanError(f"replication={FIRST_DEVICE} takes a step's batch at once; use micro_batch={batch // plan.dp}")


def _recipe(case: Case, device: str) -> None:
    recipe, plan = case.recipe, case.plan
    _of("precision", recipe.precision, PRECISIONS)
    _of("optimizer", recipe.optimizer, OPTIMIZERS)
    if device == "cpu" and recipe.precision == "tf32":
        raise RecipeError("precision tf32 is of NVIDIA GPUs; use fp32, bf16 or fp16 on a cpu")
    if device == "cpu" and plan.replication == FIRST_DEVICE:
        raise PlanError(f"replication={FIRST_DEVICE} is torch.nn.DataParallel, which needs GPUs; use dp without it on a cpu")
    if recipe.precision == "fp16" and (plan.tp > 1 or plan.pp > 1 or plan.zero >= 1):
        raise RecipeError("precision fp16 needs a gradient scaler, which torch has for whole models only; use bf16, or tp=1, pp=1 and zero 0")
    if recipe.master_weights is not None:
        raise RecipeError("master weights are not for the trainer, whose weights are fp32 under autocast; leave them out")
    if recipe.grad_dtype not in (None, "fp32") and plan.zero < 2:
        raise RecipeError(f"grad-dtype {recipe.grad_dtype} is of FSDP here, but zero={plan.zero}; use gradient_compression={recipe.grad_dtype}")
    for name, own in (("seq_len", "seq"), ("image_size", "image")):
        value, size = getattr(recipe, name), case.net.sizes.get(own)
        if value is not None and value != size:
            raise RecipeError(f"{name}={value} is not that of {case.net.text}; leave it out, or give the network {own}={value}")


def _of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(f"{what} {value} is not run by the trainer; use one of {', '.join(known)}")


def reason(case: Case, device: str) -> str:
    """Return why a case cannot run, empty where it can."""
    try:
        check_case(case, device)
    except ForetrainError as error:
        return str(error)
    return ""
