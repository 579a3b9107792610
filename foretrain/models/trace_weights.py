"""Whose each parameter is: the first op's that reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from foretrain.models.moves import Amount, Moves, Pass
from foretrain.models.trace_data import Record
from foretrain.models.trace_run import Run, Weight

FP32_BYTES = 4
WHOLLY_CASTS = (("cast", 1.0),)


class Owners:
    """Gives out parameters once each; `part` says where in the model the next ops are: prologue, layers or epilogue."""

    def __init__(self, weights: Mapping[int, Weight]) -> None:
        self.part = "prologue"
        self.tied = 0
        """Parameters that the epilogue shares with the prologue: both ends of a pipeline hold them."""
        self._weights = weights
        self._given: dict[int, str] = {}

    def take(self, storages: Iterable[int]) -> list[Weight]:
        """Return the parameters in these pieces of memory that no op has used yet, and note that one has."""
        found = []
        for storage in storages:
            if storage in self._weights and storage not in self._given:
                self._given[storage] = self.part
                found.append(self._weights[storage])
        return found

    def trains(self, storage: int) -> bool:
        """Tell whether there is a trained parameter in a piece of memory."""
        weight = self._weights.get(storage)
        return weight is not None and weight.trained

    def layer(self, record: Record, count: int, trained: bool) -> tuple[bool, bool]:  # noqa: FBT001  # a fact of the record
        """Return whether the weight and the bias of a product are its own: parameters of just its shape that no op before it has used.

        A weight that the epilogue shares with the prologue is held by both.
        """
        right, added = record.shape["right"], record.shape["added"] if record.shape["added_row"] else None
        weight, bias = self._weights.get(right), None if added is None else self._weights.get(added)
        own = weight is not None and weight.numel == count and weight.trained == trained and right not in self._given
        if weight is not None and weight.numel == count and self.part == "epilogue" and self._given.get(right) == "prologue":
            self.tied += count
            own = True
        mine = bias is not None and added not in self._given and bias.trained == trained and record.shape["added_grad"] == trained
        self.take([storage for storage, is_own in ((right, own), (added, mine)) if is_own and storage is not None])
        return own, mine


def weight_casts(run: Run, first: int, last: int) -> tuple[Moves, ...]:
    """Return the casts of the weights that records `first` to `last` (exclusive) use in fewer bits, once a pass, and their gradients'."""
    cast = [run.weights[one] for one, at in run.recorder.cast.items() if one in run.weights and first <= at < last]
    if not cast:
        return ()
    count = sum(one.numel for one in cast)
    one_way = Pass(len(cast), Amount(once_elements=count, once_octets=FP32_BYTES * count), WHOLLY_CASTS)
    return (Moves(name="weight_casts", forward_pass=one_way, backward_pass=one_way),)


def host_work(run: Run, first: int, last: int) -> tuple[Moves, ...]:
    """Return what records `first` to `last` (exclusive) cost the host alone: a view and its node, and a node for each trained weight."""
    records = run.recorder.records[first:last]
    views = sum(1 for one in records if one.kind == "view")
    read = {data.storage for one in records for data in one.reads}
    used = {one for one in read | _operands(records) if one in run.weights and run.weights[one].trained}
    if not views and not used:
        return ()
    return (Moves(name="views", forward_pass=Pass(views=views), backward_pass=Pass(views=views + len(used))),)


def _operands(records: Iterable[Record]) -> set[int]:
    found = (one.shape.get(key) for one in records for key in ("left", "right", "added"))
    return {one for one in found if one is not None}
