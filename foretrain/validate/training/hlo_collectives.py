"""The collectives of a program that XLA compiled, read from its text: what it really issues, after combining and reordering."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OPS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_LINE = re.compile(r"^\s*(?:ROOT )?%?\S+ = (?P<shape>\(.*?\)|\S+) (?P<op>[a-z-]+)\(")
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) .*\{\s*$")
_ARRAY = re.compile(r"(?P<type>pred|[a-z]+(?P<bits>\d+)\w*)\[(?P<sizes>[\d,]*)\]")
_WIDE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A loop: what runs in it, and how often."""

    body: str
    times: int


def collectives_of(text: str) -> list[dict[str, Any]]:
    """Return {"op", "bytes", "group"} of each collective of a compiled program, in order.

    Bytes are of the full array: of what is reduced, gathered or scattered. The group is that of the first device, by its ranks.
    """
    computations, entry = _computations(text)
    return list(_played(computations, entry)) if entry else []


def _computations(text: str) -> tuple[dict[str, list[dict[str, Any] | _Call]], str]:
    found: dict[str, list[dict[str, Any] | _Call]] = {}
    entry = current = ""
    for line in text.splitlines():
        head = _COMPUTATION.match(line) if not line.startswith(" ") else None
        if head:
            current = head["name"]
            found[current] = []
            entry = current if head["entry"] else entry
            continue
        step = _step(line)
        if step is not None and current:
            found[current].append(step)
    return found, entry


def _step(line: str) -> dict[str, Any] | _Call | None:
    match = _LINE.match(line)
    if match is None:
        return None
    if match["op"] == "while":
        body = re.search(r"body=%?([\w.-]+)", line)
        times = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
        return _Call(body=body[1], times=int(times[1]) if times else 1) if body else None
    op = match["op"].removesuffix("-start")
    if op not in OPS:
        return None
    group = _group(line)
    return {"op": op.replace("-", "_"), "bytes": _bytes(match["shape"], op, len(group), begun=match["op"] != op), "group": group}


def _played(computations: dict[str, list[dict[str, Any] | _Call]], name: str) -> Iterator[dict[str, Any]]:
    for step in computations.get(name, []):
        if isinstance(step, _Call):
            for _ in range(step.times):
                yield from _played(computations, step.body)
        else:
            yield step


def _group(line: str) -> list[int]:
    """Return the ranks of the first device's group: `{{0,2},{1,3}}`, or `[2,2]<=[2,2]T(1,0)`, an enumeration folded and transposed."""
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", line)
    if listed:
        return sorted(int(rank) for rank in listed[1].split(","))
    tiled = re.search(r"replica_groups=\[\d+,(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if not tiled:
        return [0]
    sizes = [int(one) for one in tiled[2].split(",")]
    order = [int(one) for one in tiled[3].split(",")] if tiled[3] else list(range(len(sizes)))
    strides = [math.prod(sizes[at + 1 :]) for at in range(len(sizes))]
    places = itertools.product(*(range(sizes[at]) for at in order))
    ranks = (sum(index * strides[at] for index, at in zip(place, order, strict=True)) for place in places)
    return sorted(itertools.islice(ranks, int(tiled[1])))


def _bytes(shape: str, op: str, group: int, *, begun: bool) -> int:
    total = sum(_array_bytes(match) for match in _ARRAY.finditer(shape))
    if op == "reduce-scatter":
        # A started one names its operands beside its results.
        return total * group if not begun else total * group // (group + 1)
    if op == "all-gather" and begun:
        return total * group // (group + 1)
    return total


def _array_bytes(match: re.Match[str]) -> int:
    bits = 8 if match["type"] == "pred" else int(match["bits"])
    return math.prod(int(size) for size in match["sizes"].split(",") if size) * max(1, bits // _WIDE)
