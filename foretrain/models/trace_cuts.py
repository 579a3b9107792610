"""Where a traced module can be cut: the blocks that run one after another and hand on one tensor."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from foretrain.models.trace_data import Data
from foretrain.models.trace_run import Run

_CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Records `first` to `last` (exclusive) of a block, and the module whose run it begins with."""

    root: str
    first: int
    last: int
    entering: int | None
    """The record that wrote what enters; None at the beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Segments before, in and after the chain, and why there is no chain where there is none."""

    prologue: Segment | None
    layers: tuple[Segment, ...]
    epilogue: Segment | None
    reason: str = ""

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All of them in order."""
        ends = (() if self.prologue is None else (self.prologue,), () if self.epilogue is None else (self.epilogue,))
        return (*ends[0], *self.layers, *ends[1])


def cut(module: Any, run: Run) -> Cuts:
    """Return how a module divides into blocks: at the children of its lists and sequences, where one tensor alone passes on."""
    total = len(run.recorder.records)
    live = _Live(run)
    names: dict[int, str] = {}
    for names in _candidates(module, run):
        valid = {where: live.only(where) for where in sorted(names)}
        places = [where for where, found in valid.items() if found is not None or where == 0]
        if len(places) > 1:
            break
    else:
        whole = Segment(root="", first=0, last=total, entering=None)
        reason = "its blocks do not hand on one tensor each" if names else "it has no blocks with weights that run one after another"
        return Cuts(prologue=None, layers=(whole,), epilogue=None, reason=reason)
    edges = [*places, total]
    segments = [Segment(root=names[a], first=a, last=b, entering=valid[a]) for a, b in zip(places, edges[1:], strict=True)]
    prologue = Segment(root="", first=0, last=places[0], entering=None) if places[0] else None
    closed = not names[places[-1]]  # else the last cut opens a block, which nothing closes: nothing runs after it
    layers = tuple(segments[:-1] if closed else segments)
    return Cuts(prologue=prologue, layers=layers, epilogue=segments[-1] if closed else None)


def _candidates(module: Any, run: Run) -> Iterator[dict[int, str]]:
    """Yield where blocks begin, with their paths, and where the last one ends (empty): the likeliest division first."""
    modules = dict(module.named_modules())
    times = Counter(call.path for call in run.recorder.calls)
    once = [call for call in run.recorder.calls if call.path and times[call.path] == 1 and call.last > call.first]
    listed = [call for call in once if isinstance(modules.get(call.path.rpartition(".")[0]), _CONTAINERS)]
    matrices = {call.path: sum(1 for one in modules[call.path].parameters() if one.dim() > 1) for call in once}
    # A block has two matrices at least; a plain sequence is cut before each layer that has one.
    for blocks in (
        [call for call in listed if matrices[call.path] > 1],
        [call for call in once if matrices[call.path] > 1],
        [call for call in listed if matrices[call.path]],
    ):
        end = max((call.last for call in blocks), default=0)
        found = {end: ""} if 0 < end < len(run.recorder.records) else {}
        found.update({call.first: call.path for call in sorted(blocks, key=lambda call: call.path.count("."))})
        yield found


class _Live:
    """Which tensors with a gradient are alive between two records."""

    def __init__(self, run: Run) -> None:
        records = run.recorder.records
        self._made: dict[int, int] = {}
        self._used: dict[int, int] = {}
        for record in records:
            for one in record.reads:
                self._used[one.storage] = record.number
            for one in record.writes:
                if record.live and record.kind != "view":
                    self._made.setdefault(one.storage, record.number)
        for storage in run.outputs:
            self._used[storage] = len(records)
        spans = sorted((made, self._used.get(storage, -1)) for storage, made in self._made.items())
        self._starts = [made for made, _ in spans]
        self._ends = [used for _, used in spans]

    def only(self, where: int) -> int | None:
        """Return the record that wrote the one tensor that passes `where`; None where there are more, or none."""
        made = bisect_left(self._starts, where)
        passing = [self._starts[i] for i in range(made) if self._ends[i] >= where]
        return passing[0] if len(passing) == 1 else None


def storage_of(run: Run, number: int) -> Data:
    """Return what a record wrote, the largest of it."""
    return max(run.recorder.records[number].writes, key=lambda one: one.elements + one.octets)
