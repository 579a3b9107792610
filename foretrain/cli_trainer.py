"""`foretrain validate trainer`: what training steps really take here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from foretrain.cli_options import TrainerOptions
from foretrain.cli_output import columns, progress, say, say_json, warn
from foretrain.errors import UsageError
from foretrain.sim.recipe import Recipe
from foretrain.validate.case import Case, net_of, plan_of
from foretrain.validate.devices import device_of, gpus
from foretrain.validate.records import Record
from foretrain.validate.trainer import SECONDS, Settings, measured, run_suite
from foretrain.validate.training.refusals import processes
from foretrain.validate.training.second_opinion import run_backend_case
from foretrain.validate.training.suites import name_of, suite_of

FAILED = 2
CPU_RANKS = 2
"""Processes of a suite on a CPU."""
LISTED = 2
"""Failures that are told in full."""


def run_trainer(options: TrainerOptions) -> int:
    """Run the suite or the case, print what was measured, and return the exit status."""
    if (options.suite is None) == (options.model is None):
        raise UsageError("give --suite quick for many cases, or --model gpt:layers=4 for one")
    if options.seconds is not None and not 0 < options.seconds <= 3600:
        raise UsageError(f"--seconds {options.seconds:g} is no time to measure; give more than 0 and at most 3600")
    device = device_of(options.device)
    try:
        records = _torch(options, device) if options.framework == "torch" else _second(options, device)
    except KeyboardInterrupt:
        warn(f"foretrain: interrupted; {options.out} keeps what was measured, and the same command goes on from there")
        raise
    if records:
        say_json([{"key": record.key, **record.data} for record in records]) if options.json else say(_table(records))
    return _failures(records, options.out)


def _torch(options: TrainerOptions, device: str) -> list[Record]:
    cases = _suite(options, device) if options.suite else [_case(options)]
    settings = Settings(
        device=device, seconds=options.seconds, software=options.software, energy=options.energy, trace=options.trace, seed=options.seed
    )
    return run_suite(cases, options.out, settings, lambda done, total, _: progress(done, total, "cases"))


def _second(options: TrainerOptions, device: str) -> list[Record]:
    """Run a case on another framework than torch; what only torch's trainer does is refused."""
    plain = TrainerOptions()
    for name in ("suite", "energy", "trace", "software"):
        if getattr(options, name) != getattr(plain, name):
            raise UsageError(f"--{name} is of the torch trainer; leave it out, or use --framework torch instead of {options.framework}")
    case = replace(_case(options), backend=options.framework)
    seconds = options.seconds or SECONDS[device]
    return [run_backend_case(case, device=device, seconds=seconds, path=options.out, seed=options.seed)]


def _suite(options: TrainerOptions, device: str) -> list[Case]:
    if options.plan or options.global_batch:
        raise UsageError(f"--suite {options.suite} has plans and batches of its own; leave out --plan and --global-batch")
    return suite_of(str(options.suite), device, options.world_size or (CPU_RANKS if device == "cpu" else max(1, gpus())))


def _case(options: TrainerOptions) -> Case:
    net, plan = net_of(str(options.model)), plan_of(options.plan)
    if net.kind == "module":
        net = replace(net, sample_shape=_shape(options.sample), sample_dtype=options.sample_dtype)
    elif options.sample:
        raise UsageError(f"--sample is for a factory's module, but {net.kind} has samples of its own; leave it out")
    batch = options.global_batch or plan.dp * plan.micro_batch * plan.pp
    recipe = Recipe(global_batch=batch, precision=options.precision, optimizer=options.optimizer, clip=options.clip)
    case = Case(name="case", net=net, plan=plan, recipe=recipe, compiled=options.compiled)
    if options.world_size is not None and options.world_size != processes(plan):
        raise UsageError(f"--world-size {options.world_size} is not the plan's {processes(plan)} processes; change one, or leave it out")
    return replace(case, name=name_of(case))


def _shape(text: str | None) -> tuple[int, ...]:
    sides = (text or "").lower().split("x")
    if not all(side.isdecimal() and int(side[:20]) for side in sides):
        raise UsageError(f"--sample {text!r} is no shape; give whole numbers with x between, without the batch, such as 3x224x224")
    return tuple(int(side) for side in sides)


def _table(records: list[Record]) -> str:
    """Return a table of what was measured, times as an undisturbed processor takes them, and how much slower a shared one was."""
    rows = [("case", "ranks", "step", "spread", "slowed", "repeats", "loss", "memory")]
    for record in records:
        name = str(record.data["case"]["name"])
        if "skipped" in record.data:
            rows.append((name, *"-------"))
            continue
        step, memory = record.spread("step_s"), record.data["memory"]
        held = memory["allocated_bytes"] or memory["rss_bytes"]
        slowed = record.data.get("slowed")
        rows.append((
            name, str(record.data["world_size"]), f"{step.median * 1e3:.1f} ms", f"{step.relative:.0%}",
            "-" if slowed is None else f"{max(0.0, slowed - 1.0):.0%}", str(step.repeats),
            f"{record.data['losses'][0]:.4f}", f"{held / 1e6:.0f} MB" if held else "-",
        ))  # fmt: skip
    return columns(rows)


def _failures(records: list[Record], path: Path) -> int:
    """Say which cases failed, and return the exit status."""
    failed = [record for record in records if record.data.keys() & {"skipped", "interrupted"}]
    for record in failed[:LISTED]:
        warn(f"foretrain: {record.data['case']['name']}: {record.data.get('skipped', record.data.get('interrupted'))}")
    if failed:
        more = f"{len(failed)} cases failed" if len(failed) > LISTED else "that case failed" if len(failed) == 1 else "those cases failed"
        warn(f"{more}, {len(measured(records))} are measured in {path}; the same command tries again what is missing")
    return FAILED if failed else 0
