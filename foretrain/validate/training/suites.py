"""Suites of cases: steps that no calibration has seen, of every layout that the devices allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from foretrain.errors import UsageError, nearest
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.validate.case import Case, Net, case_data, net_of, plan_of
from foretrain.validate.training.refusals import reason

CPU_NETS = {
    "mlp": ("mlp:width=768,depth=4,classes=1024", 64),
    "resnet": ("resnet:depth=18,image=64,classes=100", 4),
    "gpt": ("gpt:layers=4,hidden=192,heads=4,seq=128,vocab=1024", 4),
}
"""Networks and their global batches, of which one core takes some tens of milliseconds a micro-batch."""
NORMED = ("resnet",)
"""Networks of batch norms, which see a micro-batch: it is the same in every layout, so that all layouts train alike."""
LAYOUTS = {
    "single": "dp=1",
    "ddp": "dp={ranks}",
    "fsdp2": "dp={ranks},zero=3",
    "tp": "tp={ranks}",
    "tp-sp": "tp={ranks},sequence_parallel=true",
    "pp": "pp={ranks},schedule=1f1b",
}
GPU_NETS = {
    "mlp": ("mlp:width=4096,depth=8,classes=4096", 4096),
    "resnet": ("resnet:depth=50,image=224,classes=1000", 64),
    "gpt": ("gpt:layers=12,hidden=1024,heads=16,seq=1024,vocab=32768", 16),
}
GPU_ALONE = (
    ("gpt:layers=12,hidden=768,heads=12,seq=1024,vocab=32768", 4, "bf16", False),
    ("gpt:layers=12,hidden=768,heads=12,seq=1024,vocab=32768", 16, "bf16", False),
    ("gpt:layers=12,hidden=768,heads=12,seq=1024,vocab=32768", 8, "fp32", False),
    ("gpt:layers=12,hidden=768,heads=12,seq=1024,vocab=32768", 8, "tf32", False),
    ("gpt:layers=12,hidden=768,heads=12,seq=1024,vocab=32768", 16, "bf16", True),
    ("gpt:layers=8,hidden=2048,heads=16,seq=1024,vocab=32768", 8, "bf16", False),
    ("gpt:layers=8,hidden=2048,heads=16,seq=1024,vocab=32768", 8, "bf16", True),
    ("gpt:layers=4,hidden=4096,heads=32,seq=1024,vocab=32768", 4, "bf16", False),
    ("resnet:depth=50,image=224,classes=1000", 32, "bf16", False),
    ("resnet:depth=50,image=224,classes=1000", 128, "bf16", False),
    ("resnet:depth=50,image=224,classes=1000", 64, "fp32", False),
    ("resnet:depth=50,image=224,classes=1000", 64, "tf32", False),
    ("resnet:depth=50,image=224,classes=1000", 128, "bf16", True),
    ("resnet:depth=18,image=224,classes=1000", 128, "bf16", False),
)
"""On one GPU: network, batch, precision, compiled."""


def quick(device: str, ranks: int) -> list[Case]:
    """Return a dozen cases or more: on one GPU across batch, width and precision; else each network in each layout that it has."""
    if device == "cuda":
        alone = [_alone(*row) for row in GPU_ALONE]
        return alone if ranks == 1 else [*alone, *_layouts(GPU_NETS, "bf16", "cuda", ranks)]
    return _layouts(CPU_NETS, "fp32", "cpu", ranks)


SUITES: Mapping[str, Callable[[str, int], list[Case]]] = {"quick": quick}


def suite_of(name: str, device: str, ranks: int) -> list[Case]:
    """Return the cases of a suite on so many devices.

    Raises:
        UsageError: for a name that is none.
    """
    if name not in SUITES:
        raise UsageError(f"suite {name!r} is unknown; use {' or '.join(SUITES)}{nearest(name, SUITES)}")
    return SUITES[name](device, ranks)


def name_of(case: Case) -> str:
    """Return a name that says what a case is: network, batch, layout, precision, optimizer and whether it is compiled."""
    plan, recipe = case.plan, case.recipe
    layout = plan_text(plan) or "single"
    parts = [case.net.text, f"batch={recipe.global_batch}", layout, recipe.precision, recipe.optimizer]
    parts += [f"clip={recipe.clip}"] if recipe.clip else []
    return "/".join([*parts, "compiled"] if case.compiled else parts)


def plan_text(plan: Plan) -> str:
    """Return what a plan has that is not the default, as the command line writes it."""
    found = case_data(Case(name="case", net=Net(kind="mlp"), plan=plan, recipe=Recipe(global_batch=1)))["plan"]
    return ",".join(f"{name}={'+'.join(map(str, value)) if isinstance(value, (list, tuple)) else value}" for name, value in found.items())


def _alone(net: str, batch: int, precision: str, compiled: bool) -> Case:  # noqa: FBT001  # a row of the table above
    recipe = Recipe(global_batch=batch, precision=precision)
    case = Case(name="case", net=net_of(net), plan=plan_of(f"micro_batch={batch}"), recipe=recipe, compiled=compiled)
    return replace(case, name=name_of(case))


def _layouts(nets: Mapping[str, tuple[str, int]], precision: str, device: str, ranks: int) -> list[Case]:
    """Return every network in every layout that the trainer runs it in."""
    return [case for case in _crossed(nets, precision, ranks) if not reason(case, device)]


def _crossed(nets: Mapping[str, tuple[str, int]], precision: str, ranks: int) -> Iterable[Case]:
    for kind, (net, batch) in nets.items():
        for layout, words in LAYOUTS.items():
            if ranks == 1 and layout != "single":
                continue
            plan = plan_of(words.format(ranks=ranks))
            parts = 2 * ranks if kind in NORMED or plan.pp > 1 else plan.dp
            if batch % parts:
                continue
            plan = replace(plan, micro_batch=batch // parts)
            yield Case(name=f"{kind}/{layout}", net=net_of(net), plan=plan, recipe=Recipe(global_batch=batch, precision=precision))
