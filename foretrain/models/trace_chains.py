"""Chains of pointwise ops: what they move one by one, and in one kernel each way as a compiler runs them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from foretrain.models.ops import FP32_BYTES, WIDE
from foretrain.models.trace_data import Data, Record
from foretrain.models.trace_rules import class_of
from foretrain.models.trace_run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Memory that a chain touches, in one run."""

    forward: tuple[Data, ...]
    backward: tuple[Data, ...]
    saved: tuple[Data, ...]


class Uses:
    """Who reads and writes each piece of memory of a run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.readers: dict[int, list[Record]] = {}
        self.grad_readers: dict[int, list[Record]] = {}
        for record in run.recorder.records:
            _note(self.readers, record)
            for grad in record.grads:
                _note(self.grad_readers, grad)

    def fused(self, chain: Sequence[Record]) -> Traffic:
        """Return what a chain moves where it reads its inputs and writes its results once, each way.

        Backward it works out again what lies inside it, from its inputs; that is what it keeps of itself.
        Source: Ansel et al., PyTorch 2, ASPLOS 2024, section 4.2 (the partitioner recomputes pointwise ops rather than keep them).
        """
        grads = [grad for record in reversed(chain) for grad in record.grads if grad.kind == "moves"]
        inputs = _read_from_outside(chain)
        inside = {one.storage for record in chain for one in record.writes}
        forward = (*inputs, *_read_by_others(chain, self.readers, self.run.outputs))
        arriving = [one for one in _read_from_outside(grads) if one.storage not in inside]
        known = {one.storage for one in arriving}
        again = [one for one in inputs if one.storage not in known] if _uses(grads, inside) else []
        backward = (*arriving, *again, *_read_by_others(grads, self.grad_readers, frozenset())) if grads else ()
        return Traffic(forward=forward, backward=backward, saved=self._kept(chain, inputs))

    def _kept(self, chain: Sequence[Record], inputs: Sequence[Data]) -> tuple[Data, ...]:
        """Return what a chain keeps that works its inside out again: its inputs, and of the inside what others keep as well."""
        savers, members = self.run.recorder.savers, {record.number for record in chain}
        own = [one for record in chain for one in record.saved]
        arriving = {one.storage for one in inputs}
        whole = {one.storage: one for one in own}  # as large as it is, however often it is read
        # What another has kept before is counted there.
        quiet = self.run.recorder.quiet
        uncounted = [one for one in inputs if one.storage not in quiet and savers.get(one.storage, [-1])[0] in (*members, -1)]
        mine = [whole.get(one.storage, one) for one in uncounted]
        shared = [one for one in own if one.storage not in arriving and any(user not in members for user in savers.get(one.storage, ()))]
        less = sum(_size(one) for one in (*mine, *shared)) < sum(_size(one) for one in own)
        return (*mine, *shared) if less else tuple(own)


def chains(records: Sequence[Record], weights: Iterable[int]) -> list[list[Record]]:
    """Return neighbours divided into those that a compiler runs together: joined by memory that they share, weights apart."""
    apart, found = set(weights), list[tuple[set[int], list[Record]]]()
    for record in records:
        if not record.fusible:
            found.append((set(), [record]))
            continue
        touched = {one.storage for done in (record, *record.grads) for one in (*done.reads, *done.writes)} - apart
        joined = [entry for entry in found if entry[0] & touched]
        kept = [entry for entry in found if not entry[0] & touched]
        members = [one for _, group in joined for one in group]
        found = [*kept, (touched.union(*(group for group, _ in joined)), [*members, record])]
    return sorted((sorted(group, key=lambda one: one.number) for _, group in found), key=lambda group: group[0].number)


def classes_of(records: Sequence[Record], element_bytes: int) -> tuple[tuple[str, float], ...]:
    """Return the shares of what records move by class of op, where it is no elementwise one."""
    moved: dict[str, float] = defaultdict(float)
    for record in records:
        touched = (*record.reads, *record.writes)
        narrow, wide = sum(one.elements for one in touched) * element_bytes, sum(one.octets for one in touched)
        name = class_of(record.name, record.shape)
        moved[name + WIDE if name and element_bytes < FP32_BYTES and wide > narrow else name] += narrow + wide
    total = sum(moved.values())
    shares = {name: round(part / total, 5) for name, part in sorted(moved.items()) if name and total}
    return tuple((name, share) for name, share in shares.items() if share)


def needed(records: Sequence[Record], product: Record) -> tuple[list[Record], list[Record]]:
    """Return the records that a product waits for, and those that can as well run after it, beside others that they join."""
    wanted = {one.storage for one in product.reads}
    first: list[Record] = []
    for record in reversed(records):
        if not record.fusible or record.kind == "view" or wanted & {one.storage for one in record.writes}:
            wanted |= {one.storage for one in record.reads}
            first.append(record)
    chosen = {id(one) for one in first}
    return first[::-1], [one for one in records if id(one) not in chosen]


def _note(users: dict[int, list[Record]], record: Record) -> None:
    for one in record.reads:
        users.setdefault(one.storage, []).append(record)


def _read_from_outside(records: Sequence[Record]) -> list[Data]:
    written, found = set[int](), dict[int, Data]()
    for record in records:
        for one in record.reads:
            if one.storage not in written and (one.storage not in found or _size(found[one.storage]) < _size(one)):
                found[one.storage] = one
        written |= {one.storage for one in record.writes}
    return list(found.values())


def _read_by_others(records: Sequence[Record], readers: dict[int, list[Record]], outputs: frozenset[int]) -> list[Data]:
    """Return what records write that others read, or that nobody reads: results."""
    own = {id(record) for record in records}
    found: dict[int, Data] = {}
    for record in records:
        for one in record.writes:
            users = readers.get(one.storage, ())
            if one.storage in outputs or not users or any(id(user) not in own for user in users):
                found[one.storage] = one
    return list(found.values())


def _uses(grads: Sequence[Record], inside: set[int]) -> bool:
    return any(one.storage in inside for grad in grads for one in grad.reads)


def _size(one: Data) -> int:
    return one.elements + one.octets
