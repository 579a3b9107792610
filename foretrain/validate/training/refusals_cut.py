"""Cuts by tensor and by pipeline that torch, or the network, does not take."""

from __future__ import annotations

from collections.abc import Iterator

from foretrain.sim.plan import Plan
from foretrain.validate.case import Case
from foretrain.validate.training.sizes import blocks_in

Rule = tuple[bool, str]
"""Whether a case breaks it, and what is said then."""
SCHEDULES = ("gpipe", "1f1b", "interleaved-1f1b", "looped-bfs", "zb-h1", "interleaved-zb", "zb-v", "dualpipe-v")
"""Of torch.distributed.pipelining; its interleaved zero bubble with one chunk a stage is zb-h1."""
SPLIT_BACKWARD = ("zb-h1", "interleaved-zb", "zb-v", "dualpipe-v")
ONE_CHUNK = ("gpipe", "1f1b", "zb-h1")
VEES = ("zb-v", "dualpipe-v")
CUT_BY_TENSOR = {"mlp": ("width", "classes"), "gpt": ("heads", "hidden", "vocab")}
"""Networks that have a tensor-parallel layout here, and the sizes that it divides."""


def tensor_rules(case: Case, plan: Plan) -> Iterator[Rule]:
    """Yield what a cut by tensor must keep to."""
    kind, sizes, tp = case.net.kind, case.net.sizes, plan.tp
    nothing = plan.sequence_parallel and tp == 1
    yield nothing, "sequence_parallel cuts what tensor parallelism leaves whole, but tp=1; raise tp or leave it out"
    if tp == 1:
        return
    why = "nobody says how its layers pair up" if kind == "module" else "its convolutions have no tensor-parallel layout in torch"
    yield kind not in CUT_BY_TENSOR, f"tp={tp} cannot cut {case.net.text}: {why}; use dp, zero or pp"
    for name in (*CUT_BY_TENSOR[kind], *(("seq",) if plan.sequence_parallel and kind == "gpt" else ())):
        yield sizes[name] % tp > 0, f"tp={tp} does not divide {kind}:{name}={sizes[name]}; give a multiple of it"
    rows = kind == "mlp" and plan.sequence_parallel and plan.micro_batch % tp > 0
    yield rows, f"sequence_parallel cuts an mlp's micro-batch by tp={tp}, but micro_batch={plan.micro_batch}; give a multiple of it"


def pipeline_rules(case: Case, plan: Plan) -> Iterator[Rule]:
    """Yield what a pipeline must keep to."""
    name, pp, vpp = plan.schedule.name, plan.pp, plan.vpp
    if pp == 1:
        given = vpp > 1 or plan.layers_per_stage is not None
        yield given, f"vpp={vpp} and layers_per_stage are of pipelines, but pp=1; raise pp or leave them out"
        return
    yield name not in SCHEDULES, f"schedule {name} is not in torch.distributed.pipelining; use one of {', '.join(SCHEDULES)}"
    one = name in ONE_CHUNK
    yield one and vpp > 1, f"schedule {name} has one chunk a stage, but vpp={vpp}; use interleaved-1f1b, or vpp=1"
    yield not one and vpp == 1, f"schedule {name} needs several chunks a stage, but vpp=1; use vpp=2, or one of {', '.join(ONE_CHUNK)}"
    yield name in VEES and vpp != 2, f"schedule {name} has two chunks a stage, but vpp={vpp}; use vpp=2"
    yield from _split_rules(case, plan)
    yield from _replica_rules(plan)
    yield from _microbatch_rules(case, plan)
    yield from _block_rules(case, plan)


def _split_rules(case: Case, plan: Plan) -> Iterator[Rule]:
    name, split = plan.schedule.name, plan.schedule.name in SPLIT_BACKWARD
    lost = f"schedule {name} with dp={plan.dp}: torch leaves the gradients of split backward passes unreduced; use dp=1, or 1f1b"
    yield split and plan.dp > 1, lost
    yield split and case.compiled, f"schedule {name} splits backward passes, which torch does not compile; leave out compile, or use 1f1b"


def _replica_rules(plan: Plan) -> Iterator[Rule]:
    whole = plan.dp > 1 and plan.zero == 0
    several = f"vpp={plan.vpp} with dp={plan.dp}: torch's DistributedDataParallel takes one chunk a stage; use zero=2 or 3, or vpp=1"
    yield whole and plan.vpp > 1, several
    often = "gradient_sync=micro-batch with pp: torch's pipelines reduce the gradients of replicas once a step; leave it out"
    yield plan.gradient_sync == "micro-batch", often
    words = plan.gradient_compression
    yield words is not None, f"gradient_compression={words} with pp={plan.pp} is not run here; use pp=1"


def _microbatch_rules(case: Case, plan: Plan) -> Iterator[Rule]:
    name, count = plan.schedule.name, case.microbatches
    least = {"1f1b": plan.pp, "dualpipe-v": 2 * plan.pp}.get(name, 1)
    yield count < least, f"schedule {name} needs {least} micro-batches at least, but a replica has {count}; raise the global batch"
    uneven = name.startswith("interleaved") and count % max(1, count // plan.pp) > 0
    yield uneven, f"schedule {name} takes micro-batches in rounds of pp={plan.pp}, but a replica has {count}; give a multiple of it"


def _block_rules(case: Case, plan: Plan) -> Iterator[Rule]:
    blocks, chunks, given = blocks_in(case.net), plan.pp * plan.vpp, plan.layers_per_stage
    text = case.net.text
    yield blocks is None, f"pp={plan.pp} cannot cut {text}: nobody says where its stages begin; use dp or zero, or a net of a known kind"
    if given is None:
        uneven = (blocks or 0) % chunks > 0
        yield uneven, f"pp={plan.pp} × vpp={plan.vpp} does not divide the {blocks} blocks of {text}; give layers_per_stage"
        return
    counted = "+".join(map(str, given))
    wrong = len(given) != chunks or sum(given) != blocks
    yield wrong, f"layers_per_stage={counted} is not {chunks} numbers that sum to the {blocks} blocks of {text}; give such ones"
