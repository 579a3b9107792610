"""Every kind of microbenchmark by the name of its records, and the order in which a budget is spent on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from foretrain.errors import UsageError, nearest
from foretrain.validate.measuring import (
    bench_attention,
    bench_collective,
    bench_convolution,
    bench_copy,
    bench_launch,
    bench_matmul,
    bench_optimizer,
    bench_overlap,
    bench_power,
    bench_stream,
)
from foretrain.validate.measuring.bench import Bench, Kind, Lab, Machine, merged
from foretrain.validate.measuring.pace import pace_s

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "matmul": bench_matmul,
        "stream": bench_stream,
        "launch": bench_launch,
        "convolution": bench_convolution,
        "attention": bench_attention,
        "optimizer": bench_optimizer,
        "host_copy": bench_copy,
        "collective": bench_collective,
        "send": bench_collective,
        "overlap": bench_overlap,
        "power": bench_power,
    }
)
TURNS: Mapping[str, float] = MappingProxyType(
    {
        "matmul": 4,
        "stream": 4,
        "launch": 2,
        "convolution": 2,
        "attention": 1.5,
        "optimizer": 1,
        "host_copy": 1,
        "collective": 2,
        "overlap": 0.2,
        "power": 0.3,
    }
)
"""Benches of a kind that are run in one round."""
RATES = {"cpu": (2e10, 3e9), "cuda": (2e13, 1e12)}
"""FLOP/s and bytes/s that any such device reaches: for how long a bench may take."""
POWER_SHARE = 0.4
"""Of a budget that the long windows of power may take together."""


def ordered(machine: Machine, budget_s: float, only: Collection[str] | None = None) -> list[Bench]:
    """Return the benches in the order of how much they tell: some of every kind, then more of each.

    Raises:
        UsageError: where `only` names a kind that does not exist.
    """
    for name in only or ():
        if name not in KINDS:
            raise UsageError(f"microbenchmark {name!r} is unknown; use some of {', '.join(KINDS)}{nearest(name, KINDS)}")
    placed = []
    for turn, (name, count) in enumerate(TURNS.items()):
        benches = merged(KINDS[name].plan(machine))
        if name == "power":
            benches = benches[: int(POWER_SHARE * budget_s / benches[0].least_s)]
        placed += [(int(place / count), turn, place, bench) for place, bench in enumerate(benches) if only is None or bench.name in only]
    return [bench for *_, bench in sorted(placed, key=lambda one: one[:3])]


def expected_s(bench: Bench, device: str, most_s: float) -> float:
    """Return what a bench may take: warm-up and repeats, and its allocations."""
    flop_per_s, bytes_per_s = RATES[device]
    call_s = max(bench.flop / flop_per_s, bench.bytes / bytes_per_s)
    return bench.least_s or max(1.3 * most_s, 4 * call_s) + bench.held_bytes / bytes_per_s


def measured_in(lab: Lab, bench: Bench) -> dict[str, Any]:
    """Return the data that a bench's record holds beside the bench itself; of a CPU with the reference work around it."""
    if lab.device != "cpu":
        return KINDS[bench.name].measure(bench, lab)
    before_s = pace_s()
    found = KINDS[bench.name].measure(bench, lab)
    return {**found, "reference_s": (before_s + pace_s()) / 2}
