"""The real trainer: runs cases on the devices that are there, and has each on the disk as soon as it is measured.

`run_suite` starts its own processes, one a rank, or joins the launch of torchrun or Slurm that it is part of. A next start goes on
where one ended: cases that the file holds are not run again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretrain.errors import UsageError
from foretrain.software.load import load_software
from foretrain.validate.case import Case, case_data
from foretrain.validate.devices import gpus
from foretrain.validate.measuring.stamp import opened
from foretrain.validate.records import Record, append_record, of_kind, read_records
from foretrain.validate.training.join import joined
from foretrain.validate.training.launch import Crews
from foretrain.validate.training.refusals import check_case, processes
from foretrain.validate.training.visits import VISITS, pooled, visits_of
from foretrain.validate.undisturbed import undisturbed

if TYPE_CHECKING:
    from foretrain.software.profile import Software

SECONDS = {"cpu": 4.0, "cuda": 3.0}
"""Repeats of a case, unless asked for otherwise."""
SOFTWARE = "pytorch-eager"
Progress = Callable[[int, int, str], None]
"""Visits done, visits to do, and the case that is run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How cases are measured.

    `seconds` are for the repeats of each, in `visits` that are spread over the run; `software` says how DDP fills its buckets; `trace`
    is a folder.
    """

    device: str = "cpu"
    seconds: float | None = None
    visits: int | None = None
    software: str | Software = SOFTWARE
    energy: bool = False
    trace: Path | None = None
    seed: int = 0
    budget_s: float | None = None
    """After which no further case is begun; those that are left are for a next start."""

    @property
    def rounds(self) -> int:
        """How often each case is visited."""
        return self.visits or VISITS[self.device]

    def options(self) -> dict[str, Any]:
        """Return what a process is told."""
        software = load_software(self.software) if isinstance(self.software, str) else self.software
        seconds = self.seconds or SECONDS[self.device]
        return {
            "device": self.device, "limit_s": seconds / self.rounds, "energy": self.energy, "seed": self.seed,
            "trace": str(self.trace.resolve()) if self.trace else "", "bucket_bytes": software.overlap.gradient_bucket_bytes,
        }  # fmt: skip


def run_suite(cases: Sequence[Case], path: Path, settings: Settings = Settings(), progress: Progress | None = None) -> list[Record]:
    """Run cases that a file does not hold yet, and return the `step` records of all of them, in their order.

    A case that fails, by memory that ran out or a process that was killed, leaves a record with `skipped`, the reason, in the place of
    its numbers; the rest go on, and a next start tries it again, after those that it has not tried. In a joined launch the first process
    writes and returns; it ends at a case that fails.

    Raises:
        PlanError, RecipeError, UsageError: for cases that cannot be run here, before anything starts.
        OutputError: where the file cannot be written; what was measured stays in it.
        KeyboardInterrupt: as the user's; what was measured stays, and no process is left behind.
    """
    check_suite(cases, settings.device)
    place = joined(os.environ)
    if place is None:
        _run_own(cases, path, settings, progress)
    else:
        os.environ.update(place)
        if not _run_joined(cases, path, settings, progress):
            return []
    held = _undisturbed(path)
    wanted = [key(case, settings.device) for case in cases]
    return [held[one] for one in wanted if one in held]


def _undisturbed(path: Path) -> dict[str, Record]:
    """Return the steps of a file by key, having it say what they take on an undisturbed processor; repeats stay in it as they were."""
    records = read_records(path)
    found = {}
    for before, after in zip(records, undisturbed(records), strict=True):
        if after.kind == "step":
            found[after.key] = after
            if after.data != before.data:
                append_record(path, after)
    return found


def key(case: Case, device: str) -> str:
    """Return what names a case's record in a file."""
    return f"{case.name}/{device}"


def measured(records: Sequence[Record]) -> list[Record]:
    """Return those of `step` records that hold a measurement."""
    return [record for record in records if "skipped" not in record.data]


def check_suite(cases: Sequence[Case], device: str) -> None:
    """Refuse cases that torch, or this machine, cannot run.

    Raises:
        PlanError, RecipeError, UsageError: naming what and why.
    """
    if not cases:
        raise UsageError("there is no case to run; give a model or a suite")
    names = [case.name for case in cases]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two cases are called {twice}; give each a name of its own")
    if importlib.util.find_spec("torch") is None:
        raise UsageError("the trainer needs torch; pip install 'foretrain[torch]'")
    for case in cases:
        check_case(case, device)
    if device == "cuda":
        _enough_gpus(cases)


def _enough_gpus(cases: Sequence[Case]) -> None:
    count = gpus()
    if not count:
        raise UsageError("device cuda is not there: torch sees no GPU; use cpu, or a torch built for the GPU's driver")
    alone = joined(os.environ) is None
    for case in cases:
        needed = case.plan.ranks if alone or processes(case.plan) == 1 else 1
        if needed > count:
            raise UsageError(f"{case.name} needs {needed} GPUs, but there are {count}; use a smaller plan, or torchrun on more")


def _run_own(cases: Sequence[Case], path: Path, settings: Settings, progress: Progress | None) -> None:
    """Visit what is left, round by round, with processes of its own; those of as many ranks share one start."""
    until_s = None if settings.budget_s is None else time.monotonic() + settings.budget_s
    options, failed = settings.options(), set[str]()
    with Crews(settings.device) as crews:
        for visit in range(1, settings.rounds + 1):
            left = [case for case in _left(cases, path, settings.device, visit) if case.name not in failed]
            for number, case in enumerate(sorted(left, key=lambda one: processes(one.plan))):
                if until_s is not None and time.monotonic() > until_s:
                    return
                _tell(progress, visit * len(cases) - len(left) + number, len(cases) * settings.rounds, case.name)
                answer = crews.run(processes(case.plan), _asked(case, options, visit))
                _keep(path, case, settings.device, answer)
                if "failed" in answer:
                    failed.add(case.name)
    _tell(progress, len(cases) * settings.rounds, len(cases) * settings.rounds, "measured")


def _run_joined(cases: Sequence[Case], path: Path, settings: Settings, progress: Progress | None) -> bool:
    """Visit what is left with the processes of a launch; returns whether this is the first of them, which writes."""
    from foretrain.validate.training.worker import answer, join, leave  # noqa: PLC0415  # brings torch

    peers = join(settings.device)
    other = next((case for case in cases if processes(case.plan) != peers.count), None)
    if other is not None:
        raise UsageError(f"{other.name} runs on {processes(other.plan)} processes, but this launch has {peers.count}; start as many")
    first, options = peers.rank == 0, settings.options()
    for visit in range(1, settings.rounds + 1):
        left = peers.each([one.name for one in _left(cases, path, settings.device, visit)] if first else None)[0]
        for number, name in enumerate(left):
            case = next(one for one in cases if one.name == name)
            _tell(progress if first else None, number, len(left), name)
            found = answer(_asked(case, options, visit), peers)
            if first:
                _keep(path, case, settings.device, found)
            if "failed" in found:
                raise UsageError(f"{name}: {found['failed']}; start again for the rest, this case comes last then")
    leave(peers)
    return bool(first)


def _asked(case: Case, options: Mapping[str, Any], visit: int) -> dict[str, Any]:
    """Return what the processes of a visit are told: energy and a trace are for the first."""
    once = {} if visit == 1 else {"energy": False, "trace": ""}
    return {"case": case_data(case), "options": {**options, **once}}


def _left(cases: Sequence[Case], path: Path, device: str, visit: int) -> list[Case]:
    """Return the cases that a file holds fewer visits of, those that failed before last; a new file gets its stamp."""
    held = {record.key: record.data for record in of_kind(opened(path, device), "step")}
    same = {case.name: _same(held.get(key(case, device)), case) for case in cases}
    left = [case for case in cases if visits_of(same[case.name]) < visit]
    return sorted(left, key=lambda case: bool(same[case.name].keys() & {"skipped", "interrupted"}))


def _same(held: Mapping[str, Any] | None, case: Case) -> Mapping[str, Any]:
    """Return what a file holds of this very case; nothing where it holds another of that name."""
    return held if held is not None and held["case"] == json.loads(json.dumps(case_data(case))) else {}


def _keep(path: Path, case: Case, device: str, answer: dict[str, Any]) -> None:
    """Write what came of a visit, together with those before it; what failed later leaves what was measured."""
    known = {record.key: record.data for record in of_kind(read_records(path), "step")}
    held = _same(known.get(key(case, device)), case)
    if "failed" not in answer:
        data = pooled(held, answer["data"])
    elif visits_of(held):
        data = {**held, "interrupted": answer["failed"]}
    else:
        data = {"case": case_data(case), "device": device, "skipped": answer["failed"]}
    append_record(path, Record(kind="step", key=key(case, device), data=data))


def _tell(progress: Progress | None, done: int, total: int, what: str) -> None:
    if progress is not None:
        progress(done, total, what)
