"""Short steps that a calibration runs itself: small networks in every layout, none of them in a suite."""

from __future__ import annotations

from dataclasses import replace

from foretrain.sim.recipe import Recipe
from foretrain.validate.case import Case, net_of, plan_of
from foretrain.validate.training.refusals import reason

CPU = (
    ("mlp:width=512,depth=6,classes=512", 32),
    ("gpt:layers=2,hidden=128,heads=4,seq=64,vocab=512", 8),
    ("resnet:depth=18,image=48,classes=10", 8),
)
GPU = (
    ("gpt:layers=6,hidden=512,heads=8,seq=512,vocab=8192", 8, "bf16", False),
    ("gpt:layers=6,hidden=1536,heads=12,seq=1024,vocab=16384", 8, "bf16", False),
    ("resnet:depth=34,image=192,classes=100", 64, "bf16", False),
    ("gpt:layers=6,hidden=1024,heads=16,seq=1024,vocab=16384", 4, "tf32", False),
    ("resnet:depth=50,image=160,classes=100", 64, "tf32", False),
    ("mlp:width=4096,depth=6,classes=4096", 4096, "bf16", False),
    ("gpt:layers=4,hidden=512,heads=8,seq=512,vocab=8192", 4, "fp32", False),
    ("resnet:depth=50,image=192,classes=100", 96, "bf16", False),
    ("gpt:layers=3,hidden=2560,heads=20,seq=2048,vocab=16384", 4, "bf16", False),
    ("resnet:depth=18,image=160,classes=100", 128, "fp32", False),
    ("gpt:layers=6,hidden=1024,heads=16,seq=1024,vocab=16384", 8, "bf16", True),
)
"""Network, batch, precision, compiled."""
LAYOUTS = ("dp=1", "dp={ranks}", "dp={ranks},zero=3", "tp={ranks}", "pp={ranks}")
PARTS = 2
"""Micro-batches of a pipeline for each of its stages."""


def cases_for(device: str, ranks: int) -> list[Case]:
    """Return the steps that a calibration of a device with so many ranks runs, the most telling first."""
    if device == "cuda":
        alone = [_case(net, "dp=1", batch, 1, precision, compiled=compiled) for net, batch, precision, compiled in GPU]
        return alone if ranks == 1 else [*alone, *_layouts([(net, batch * ranks, "bf16") for net, batch, _, _ in GPU[:2]], ranks, device)]
    return _layouts([(net, batch, "fp32") for net, batch in CPU], ranks, device)


def _layouts(nets: list[tuple[str, int, str]], ranks: int, device: str) -> list[Case]:
    made = [
        _case(net, layout.format(ranks=ranks), batch, ranks, precision)
        for layout in (LAYOUTS if ranks > 1 else LAYOUTS[:1])
        for net, batch, precision in nets
    ]
    return [case for case in made if not reason(case, device)]


def _case(net: str, layout: str, batch: int, ranks: int, precision: str, *, compiled: bool = False) -> Case:
    plan = plan_of(layout)
    plan = replace(plan, micro_batch=max(1, batch // (PARTS * plan.pp if plan.pp > 1 else plan.dp)))
    name = f"calibration/{net}/{layout}/b{batch}/{precision}{'/compiled' if compiled else ''}"
    optimizer = "adamw" if net.startswith("gpt") else "momentum" if net.startswith("resnet") else "sgd"
    recipe = Recipe(global_batch=batch, precision=precision, optimizer=optimizer)
    return Case(name=name, net=net_of(net), plan=plan, recipe=recipe, compiled=compiled)
