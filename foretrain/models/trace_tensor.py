"""How tensor parallelism cuts a traced block: pairs of linear layers with only pointwise ops and attention between them.

Source: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3 (columns first, then rows, one reduction a pair).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from foretrain.models.attention import CoreAttention
from foretrain.models.embedding import Embedding
from foretrain.models.matmul import Linear
from foretrain.models.model import Step
from foretrain.models.moves import Amount, Moves, Pass
from foretrain.models.ops import Boundary, Op
from foretrain.models.trace_data import Record

ELEMENTWISE = frozenset({
    "add", "sub", "mul", "div", "neg", "pow", "square", "exp", "sqrt", "rsqrt", "reciprocal", "abs", "maximum", "minimum", "where", "clamp",
    "clamp_min", "clamp_max", "gelu", "silu", "relu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu", "elu",
    "softplus", "mish", "erf", "sin", "cos", "cat", "clone", "_to_copy", "copy", "native_dropout", "masked_fill", "bernoulli", "zeros_like",
})  # fmt: skip
"""Ops between two linear layers that treat every feature by itself, or move whole heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Linear layers cut by columns, what runs between, and the one that is cut by rows; all by the numbers of their records."""

    columns: tuple[int, ...]
    between: frozenset[int]
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCut:
    """A block as tensor parallelism runs it, and what its degree must divide; or the reason why it cannot be cut."""

    steps: tuple[Step, ...]
    dims: Mapping[str, int]
    reason: str = ""


def tensor_cut(steps: Sequence[Op], sources: Mapping[int, Sequence[int]], records: Sequence[Record]) -> TensorCut:
    """Return the block with its pairs cut; `records` are its own and `sources` the numbers of those that each op was made of."""
    whole = tuple(steps)
    linears = {sources[id(op)][0]: op for op in steps if isinstance(op, Linear)}
    other = next((op for op in steps if not isinstance(op, (Linear, CoreAttention, Moves))), None)
    if other is not None:
        return TensorCut(steps=whole, dims={}, reason=f"{other.name} is no linear layer and no attention")
    flow = _Flow(records, linears)
    pairs = [pair for number in linears if (pair := flow.pair(number)) is not None]
    paired = {number for pair in pairs for number in (*pair.columns, pair.row)}
    alone = next((op for number, op in linears.items() if number not in paired), None)
    inside = {number for pair in pairs for number in pair.between}
    outside = next((op for op in steps if isinstance(op, CoreAttention) and sources[id(op)][0] not in inside), None)
    if not pairs or alone is not None or outside is not None:
        name = alone.name if alone is not None else outside.name if outside is not None else "the block"
        why = f"{name} has no partner: linear layers pair up with only pointwise ops or attention between"
        return TensorCut(steps=whole, dims={}, reason=why)
    views = {record.number for record in records if record.kind == "view"}
    return _cut(whole, {key: _solid(numbers, views) for key, numbers in sources.items()}, pairs, linears)


def stem_cut(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the block before the layers of a model that is cut: the rows of its tables are, and the sequence may be."""
    found: list[Step] = []
    for step in steps:
        found.append(_in_sequence(step))
        if isinstance(step, Embedding):
            found.append(Boundary(name=f"{step.name}.reduce", kind="leave", elements=step.tokens * step.width))
    return tuple(found)


def head_cut(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the block after the layers of a model that is cut: its classes are, and the loss is taken of the parts.

    Source: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3 (cross-entropy of a vocabulary that is cut).
    """
    place = next((number for number, step in enumerate(steps) if not isinstance(step, Moves)), len(steps))
    before, rest = steps[:place], steps[place + 1 :]
    logits = steps[place] if place < len(steps) else None
    if not isinstance(logits, Linear) or not all(isinstance(step, Moves) for step in rest):
        return tuple(_in_sequence(step) for step in steps)
    return (
        *(_in_sequence(step) for step in before),
        Boundary(name=f"{logits.name}.enter", kind="enter", elements=logits.tokens * logits.in_features),
        replace(logits, cut="column"),
        Boundary(name=f"{logits.name}.loss", kind="loss", elements=logits.tokens),
        *(replace(step, split="tensor") for step in rest if isinstance(step, Moves)),
    )


def _in_sequence(step: Step) -> Step:
    return replace(step, split="sequence") if isinstance(step, Moves) else step


class _Flow:
    """Who makes and who reads what inside a block."""

    def __init__(self, records: Sequence[Record], linears: Mapping[int, Linear]) -> None:
        self.linears = linears
        self.records = {record.number: record for record in records}
        self.made: dict[int, Record] = {}
        self.readers: dict[int, list[int]] = {}
        for record in records:
            for one in record.writes:
                self.made.setdefault(one.storage, record)
            for one in record.reads:
                self.readers.setdefault(one.storage, []).append(record.number)

    def pair(self, row: int) -> Pair | None:
        """Return the pair that a linear layer ends; None where it ends none."""
        columns, between = set[int](), set[int]()
        waiting = [self.records[row].shape["left"]]
        while waiting:
            record = self.made.get(waiting.pop())
            if record is None:
                return None  # it comes from outside the block, uncut
            if record.number in self.linears:
                columns.add(record.number)
            elif not self._passes(record):
                return None
            elif record.number not in between:
                between.add(record.number)
                waiting += [one.storage for one in record.reads if self._counts(one.storage)]
        return self._closed(Pair(columns=tuple(sorted(columns)), between=frozenset(between), row=row))

    def _passes(self, record: Record) -> bool:
        return record.kind == "attention" or (record.kind == "moves" and record.name in ELEMENTWISE)

    def _counts(self, storage: int) -> bool:
        """Tell whether memory holds activations: what needs no gradient (positions, masks) is whole on every rank."""
        made = self.made.get(storage)
        return made.live if made is not None else False

    def _closed(self, pair: Pair) -> Pair | None:
        """Return a pair whose columns read one input, and whose results go nowhere else."""
        inputs = {self.records[number].shape["left"] for number in pair.columns}
        known = {*pair.between, pair.row}
        written = chain.from_iterable(self.records[number].writes for number in (*pair.columns, *pair.between))
        leaks = any(user not in known for one in written for user in self.readers.get(one.storage, ()) if user not in pair.columns)
        return pair if pair.columns and len(inputs) == 1 and not leaks else None


def _cut(steps: Sequence[Op], sources: Mapping[int, Sequence[int]], pairs: Sequence[Pair], linears: Mapping[int, Linear]) -> TensorCut:
    columns = {number: pair for pair in pairs for number in pair.columns}
    rows = {pair.row for pair in pairs}
    inside = {number for pair in pairs for number in pair.between}
    opened: set[int] = set()
    found: list[Step] = []
    for op in steps:
        made_of = sources.get(id(op), ())
        if isinstance(op, Linear) and made_of[0] in columns:
            pair = columns[made_of[0]]
            if pair.row not in opened:
                opened.add(pair.row)
                found.append(Boundary(name=f"{op.name}.enter", kind="enter", elements=op.tokens * op.in_features))
            found.append(replace(op, cut="column"))
        elif isinstance(op, Linear) and made_of[0] in rows:
            found += _row(op)
        elif isinstance(op, Moves):
            found.append(replace(op, split="tensor" if made_of and set(made_of) <= inside else "sequence"))
        else:
            found.append(op)
    return TensorCut(steps=tuple(found), dims=_dims(steps, sources, pairs, linears))


def _dims(
    steps: Sequence[Op], sources: Mapping[int, Sequence[int]], pairs: Sequence[Pair], linears: Mapping[int, Linear]
) -> dict[str, int]:
    """Return what the degree must divide."""
    dims: dict[str, int] = {}
    heads = [op for op in steps if isinstance(op, CoreAttention)]
    for attention in heads:
        dims |= {"attention heads": attention.heads, "key-value heads": attention.kv_heads}
    attended = {sources[id(op)][0] for op in heads}
    for pair in pairs:
        if not pair.between & attended:
            dims["MLP width"] = linears[pair.row].in_features
    return dims


def _solid(numbers: Sequence[int], views: set[int]) -> tuple[int, ...]:
    """Return the numbers without those of views; of views alone, all."""
    return tuple(number for number in numbers if number not in views) or tuple(numbers)


def _row(op: Linear) -> tuple[Step, ...]:
    """Return a layer cut by rows; its bias is added once the parts are summed, and is whole on every rank."""
    width = op.out_features * op.tokens
    leave = Boundary(name=f"{op.name}.leave", kind="leave", elements=width)
    if not op.bias:
        return replace(op, cut="row"), leave
    gradient = Pass(1, Amount(width)) if op.trained else Pass()
    bias = Moves(name=f"{op.name}.bias", backward_pass=gradient, parameters=op.out_features, trained=op.trained, split="sequence")
    return replace(op, cut="row", bias=False), leave, bias
