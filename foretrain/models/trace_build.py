"""From two records of a module to its blocks of ops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from foretrain.errors import ModelError
from foretrain.models.attention import CoreAttention
from foretrain.models.convolution import Conv
from foretrain.models.cross_attention import CrossAttention
from foretrain.models.embedding import Embedding
from foretrain.models.matmul import Linear
from foretrain.models.moves import NOTHING, Amount, Moves, Pass
from foretrain.models.ops import Op
from foretrain.models.product import Product, Size
from foretrain.models.recurrent import Recurrent
from foretrain.models.trace_chains import Uses, chains, classes_of, needed
from foretrain.models.trace_cuts import Segment
from foretrain.models.trace_data import Data, Record
from foretrain.models.trace_fit import Fit
from foretrain.models.trace_run import Run
from foretrain.models.trace_weights import Owners, host_work, weight_casts


class Builder:
    """Makes ops of records; each parameter belongs to the first op that reads it."""

    def __init__(self, first: Run, second: Run) -> None:
        self.runs = (first, second)
        self.fit = Fit(first=first.samples, second=second.samples)
        self.uses = (Uses(first), Uses(second))
        self.sources: dict[int, tuple[int, ...]] = {}
        """Numbers of the records that an op was made of, by its identity."""
        self.owners = Owners(first.weights)
        self._root = ""

    def steps(self, segment: Segment, *, last: bool) -> tuple[Op, ...]:
        """Return the ops of a segment; `last` says that it is the end of the model, which may share weights with the beginning."""
        self._root = segment.root
        self.owners.part = "epilogue" if last else "layers" if segment.root else "prologue"
        found: list[Op] = []
        waiting: list[Record] = []
        for record in self.runs[0].recorder.records[segment.first : segment.last]:
            if record.kind == "moves" or (record.kind == "view" and record.grads):
                waiting.append(record)
            elif record.kind != "view":
                before, waiting = needed(waiting, record)
                found += [*self._moves(before), *self._product(record)]
        return (*found, *self._moves(waiting), *self._aside(segment))

    def _aside(self, segment: Segment) -> tuple[Op, ...]:
        span = (self.runs[0], segment.first, segment.last)
        return (*weight_casts(*span), *host_work(*span))

    def unused(self) -> tuple[Op, ...]:
        """Return a place for the parameters that no op reads; they get no gradient."""
        rest = sum(one.numel for one in self.owners.take(self.runs[0].weights))
        return (Moves(name="unused", parameters=rest, trained=False),) if rest else ()

    # ── memory-bound ops ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _moves(self, records: Sequence[Record]) -> Iterator[Op]:
        for chain in chains(records, self.runs[0].weights):
            numbers = tuple(record.number for record in chain)
            for op in self._embedding(chain[0]) if chain[0].name == "embedding" else self._chain(chain):
                self.sources[id(op)] = numbers
                yield op

    def _chain(self, chain: Sequence[Record]) -> Iterator[Op]:
        """Yield a chain as one op, and a place for its frozen parameters where others are trained."""
        name = self._name(chain[0])
        pairs = [(record, self._twin(record)) for record in chain]
        forward = self._pass(pairs, name)
        grads = [(a, b) for one, two in pairs for a, b in self._grads(one, two, name)]
        backward = self._pass(grads, name)
        saved = self._amount(pairs, lambda one: one.saved, name)
        weights = self.owners.take(one.storage for record in chain for one in record.reads)
        trained = sum(one.numel for one in weights if one.trained)
        frozen = sum(one.numel for one in weights if not one.trained)
        fused = self._fused(pairs, name) if forward.launches + backward.launches > 2 and chain[0].fusible else {}
        if forward.launches or backward.launches or saved != NOTHING or trained:
            yield Moves(
                name=name, forward_pass=forward, backward_pass=backward, saved=saved, parameters=trained, **fused,
            )  # fmt: skip
        if frozen:
            yield Moves(name=f"{name}.frozen", parameters=frozen, trained=False)

    def _fused(self, pairs: Sequence[tuple[Record, Record]], name: str) -> dict[str, Any]:
        first, second = self.uses[0].fused([a for a, _ in pairs]), self.uses[1].fused([b for _, b in pairs])
        sums = sum(1 for record, _ in pairs for one in record.reads if self.owners.trains(one.storage) and record.grads)
        forward = Pass(1 if any(record.launches for record, _ in pairs) else 0, self.fit.amount(first.forward, second.forward, name))
        backward = Pass(1 + sums if first.backward else 0, self.fit.amount(first.backward, second.backward, name))
        return {
            "fused_forward": forward, "fused_backward": backward, "fused_saved": self.fit.amount(first.saved, second.saved, name),
        }  # fmt: skip

    def _embedding(self, record: Record) -> Iterator[Op]:
        table = next((self.runs[0].weights[one.storage] for one in record.reads if one.storage in self.runs[0].weights), None)
        name, twin = self._name(record), self._twin(record)
        out = self.fit.amount(record.writes, twin.writes, name)
        dense = any(grad.name == "embedding_dense_backward" for grad in record.grads)
        plain = table is not None and dense and len(table.shape) == 2 and not out.once_elements and out.elements % table.shape[-1] == 0
        if not plain or table is None or not self.owners.take(one.storage for one in record.reads):
            yield from self._chain([record])
            return
        vocab, width = table.shape
        yield Embedding(name=name, tokens=int(out.elements) // width, vocab=vocab, width=width)
        rest = [(a, b) for a, b in self._grads(record, twin, name) if a.name != "embedding_dense_backward"]
        yield from self._extras(name, rest, [], record, twin)

    # ── products ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _product(self, record: Record) -> Iterator[Op]:
        twin = self._twin(record)
        make = {
            "product": self._matmul, "convolution": self._convolution, "attention": self._attention, "recurrent": self._recurrent,
        }[record.kind]  # fmt: skip
        for op in make(record, twin):
            self.sources[id(op)] = (record.number,)
            yield op

    def _matmul(self, record: Record, twin: Record) -> Iterator[Op]:
        name = self._name(record)
        left_grad, right_grad = self._verified(record)
        sizes = zip(record.shape["sizes"], twin.shape["sizes"], strict=True)
        batch, m, n, k = (self.fit.size(a, b, name) for a, b in sizes)
        if sum(1 for one in (batch, m, n, k) if one.each) > 1:
            raise ModelError(f"{name}: multiplies samples of a batch with one another, so its cost is none of a sample; keep them apart")
        rows_only = batch == Size(1) and not m.once and not n.each and not k.each
        if not rows_only or record.shape.get("groups"):
            weights = self.owners.take((record.shape["left"], record.shape["right"]))
            op: Op = Product(
                name=name, batch=batch, m=m, n=n, k=k, left_grad=left_grad, right_grad=right_grad,
                saved=self.fit.amount(record.saved, twin.saved, name), parameters=sum(one.numel for one in weights),
                trained=all(one.trained for one in weights),
            )  # fmt: skip
            yield op
            yield from self._extras(name, self._grads(record, twin, name), [], record, twin)
            return
        own, bias = self.owners.layer(record, k.once * n.once, right_grad)
        left = record.shape["left"]
        kept = any(one.storage == left and one.elements for one in record.saved) and self._whole(record, m.each * k.once)
        linear = Linear(
            name=name, tokens=m.each, in_features=k.once, out_features=n.once, bias=bias, cut="none", saves_input=kept,
            trained=right_grad, input_grad=left_grad, own_weight=own,
        )  # fmt: skip
        yield linear
        yield from self._rest(name, record, twin, {left} if kept else set(), bias_sum=bias and right_grad)

    def _convolution(self, record: Record, twin: Record) -> Iterator[Op]:
        name, shape = self._name(record), record.shape
        left_grad, right_grad = self._verified(record)
        images, groups = (self.fit.size(shape[key], twin.shape[key], name) for key in ("images", "groups"))
        per_sample = groups.each > 0
        ins, outs = (shape[key] // self.fit.first if per_sample else shape[key] for key in ("ins", "outs"))
        if (images.once if not per_sample else groups.once) or (per_sample and images.each):
            yield from self._constant_convolution(record, twin)
            return
        count = ins * outs // (groups.each or groups.once) * _volume(shape["kernel"])
        own, bias = (False, False) if per_sample else self.owners.layer(record, count, right_grad)
        left = shape["left"]
        kept = any(one.storage == left and one.elements for one in record.saved)
        op = Conv(
            name=name, in_channels=ins, out_channels=outs, in_size=shape["in_size"], out_size=shape["out_size"], kernel=shape["kernel"],
            stride=shape["stride"], groups=groups.each or groups.once, bias=bias, transposed=shape["transposed"], trained=right_grad,
            input_grad=left_grad, saves_input=kept, images=images.each or images.once, own_weight=own,
        )  # fmt: skip
        yield op
        yield from self._rest(name, record, twin, {left} if kept else set(), bias_sum=False)

    def _constant_convolution(self, record: Record, twin: Record) -> Iterator[Op]:
        """Yield a convolution whose images do not come with the samples as the product that it is."""
        name, shape, other = self._name(record), record.shape, twin.shape
        left_grad, right_grad = self._verified(record)
        rows = [one["images"] * _volume(one["in_size"] if one["transposed"] else one["out_size"]) for one in (shape, other)]
        depth = [one["ins"] // one["groups"] * _volume(one["kernel"]) for one in (shape, other)]
        width = [one["outs"] // one["groups"] for one in (shape, other)]
        yield Product(
            name=name, batch=self.fit.size(shape["groups"], other["groups"], name), m=self.fit.size(rows[0], rows[1], name),
            n=self.fit.size(width[0], width[1], name), k=self.fit.size(depth[0], depth[1], name), left_grad=left_grad,
            right_grad=right_grad,
        )  # fmt: skip
        yield from self._rest(name, record, twin, set(), bias_sum=False)

    def _attention(self, record: Record, twin: Record) -> Iterator[Op]:
        name, shape = self._name(record), record.shape
        heads, kv_heads, queries, keys = (
            self.fit.size(shape[key], twin.shape[key], name) for key in ("heads", "kv_heads", "queries", "keys")
        )
        if heads.once or queries.each or keys.each:
            raise ModelError(f"{name}: attention over samples of a batch together has no formula here; keep the batch in front")
        flags: dict[str, Any] = {key: shape[key] for key in ("causal", "dropout", "score_bias", "head_dim")}
        op: Op
        if queries == keys and shape["head_dim"] == shape["value_dim"]:
            op = CoreAttention(name=name, tokens=queries.once, heads=heads.each, kv_heads=kv_heads.each or 1, **flags)
        else:
            op = CrossAttention(
                name=name, queries=queries.once, keys=keys.once, heads=heads.each, kv_heads=kv_heads.each or 1,
                value_dim=shape["value_dim"], **flags,
            )  # fmt: skip
        yield op
        yield from self._rest(name, record, twin, set(), bias_sum=False)

    def _recurrent(self, record: Record, twin: Record) -> Iterator[Op]:
        name, shape = self._name(record), dict(record.shape)
        samples = self.fit.size(shape.pop("samples"), twin.shape["samples"], name)
        if samples.once:
            raise ModelError(f"{name}: runs over sequences that do not come with the samples; give it one per sample")
        left, weights = shape.pop("left"), shape.pop("weights")
        found = self.owners.take(weights)
        kept = shape["trained"] and any(one.storage == left for one in record.saved)
        op = Recurrent(name=name, saves_input=kept, **{**shape, "steps": shape["steps"] * samples.each})
        if sum(one.numel for one in found) != op.parameters:
            raise ModelError(f"{name}: a recurrent layer whose weights another module has used has no formula here; give it its own")
        yield op
        yield from self._rest(name, record, twin, {left} if kept else set(), bias_sum=False)

    # ── shared ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _verified(self, record: Record) -> tuple[bool, bool]:
        """Return which operands get a gradient, as autograd really made them.

        Raises:
            ModelError: where backward ran other products than these.
        """
        left, right = bool(record.shape["left_grad"]), bool(record.shape["right_grad"])
        really = sum(one.flop for one in record.grads)
        if really == record.flop * (left + right):
            return left, right
        if really == 0:
            return False, False
        raise ModelError(
            f"{self._full(record)}: backward multiplies {really:,} FLOPs where the gradients of {record.name} take "
            f"{record.flop * (left + right):,}; take checkpointing out of the module (the plan's recompute is for that)"
        )

    def _rest(self, name: str, record: Record, twin: Record, kept: set[int], *, bias_sum: bool) -> Iterator[Op]:
        """Yield what a product did besides: kept for backward, other parameters, small ops of its backward pass."""
        grads = self._grads(record, twin, name)
        sums = [pair for pair in grads if pair[0].name == "sum"]
        if bias_sum and sums:
            grads = [pair for pair in grads if pair is not sums[0]]
        numbers = [index for index, one in enumerate(record.saved) if one.storage not in kept]
        yield from self._extras(name, grads, numbers, record, twin)

    def _extras(self, name: str, grads: Sequence[tuple[Record, Record]], saved: Sequence[int], record: Record, twin: Record) -> Iterator[Op]:  # noqa: E501  # what is left of a product
        weights = self.owners.take(one.storage for one in (*record.reads, *(Data(s, 0, 0) for s in _operands(record))))
        trained = sum(one.numel for one in weights if one.trained)
        frozen = sum(one.numel for one in weights if not one.trained)
        backward = self._pass(grads, name)
        kept = self.fit.amount([record.saved[i] for i in saved], [twin.saved[i] for i in saved], name)
        if backward.launches or kept != NOTHING or trained:
            yield Moves(name=f"{name}.besides", backward_pass=backward, saved=kept, parameters=trained)
        if frozen:
            yield Moves(name=f"{name}.frozen", parameters=frozen, trained=False)

    def _grads(self, record: Record, twin: Record, name: str) -> list[tuple[Record, Record]]:
        """Return the memory-bound ops of a record's backward pass in both runs."""
        if record.kind == "moves" and any(one.flop for one in record.grads):
            raise ModelError(f"{name}: {record.name} multiplies matrices in backward in a way that has no formula here")
        pairs = zip(record.grads, twin.grads, strict=False)
        return [(a, b) for a, b in pairs if a.kind == "moves"]

    def _pass(self, pairs: Sequence[tuple[Record, Record]], name: str) -> Pass:
        moved = self._amount(pairs, lambda one: [*one.reads, *one.writes], name)
        element_bytes = self.runs[0].recorder.compute.itemsize
        launches, calls = sum(one.launches for one, _ in pairs), sum(1 for one, _ in pairs if one.launches)
        return Pass(launches, moved, classes_of([one for one, _ in pairs], element_bytes), calls if calls != launches else 0)

    def _amount(self, pairs: Sequence[tuple[Record, Record]], pick: Any, name: str) -> Amount:
        return self.fit.amount([x for a, _ in pairs for x in pick(a)], [x for _, b in pairs for x in pick(b)], name)

    def _twin(self, record: Record) -> Record:
        return self.runs[1].recorder.records[record.number]

    def _full(self, record: Record) -> str:
        return f"{record.path}.{record.name}" if record.path else record.name

    def _name(self, record: Record) -> str:
        """Return the name of a record inside its block."""
        full, root = self._full(record), self._root
        return full.removeprefix(f"{root}.") if root else full

    def _whole(self, record: Record, each: int) -> bool:
        """Tell whether what a product keeps of its input is just that input, and no larger tensor that it is a part of."""
        kept = next(one for one in record.saved if one.storage == record.shape["left"])
        return kept.elements == each * self.fit.first


def _operands(record: Record) -> Iterator[int]:
    yield from (record.shape[key] for key in ("left", "right", "added") if record.shape.get(key) is not None)


def _volume(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
