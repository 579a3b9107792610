"""The collectives of a TensorFlow graph, read from its ops: what MirroredStrategy put there for the first replica."""

from __future__ import annotations

import math
from typing import Any

OPS = ("CollectiveReduce", "CollectiveReduceV2", "CollectiveReduceV3", "NcclAllReduce")


def collectives_of(graph: Any, replicas: int) -> list[dict[str, Any]]:
    """Return {"op", "bytes", "group"} of each all-reduce that the first replica takes part in, in the order of the graph."""
    ops = [one for one in graph.get_operations() if one.type in OPS and one.device.endswith(":0")]
    return [{"op": "all_reduce", "bytes": _bytes(one.outputs[0]), "group": list(range(replicas))} for one in ops]


def _bytes(tensor: Any) -> int:
    return math.prod(int(size) for size in tensor.shape) * int(tensor.dtype.size)
