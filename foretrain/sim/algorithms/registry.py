"""Which algorithms each communication library has."""

from __future__ import annotations

from foretrain.sim.algorithms.all_to_all import AllToAll
from foretrain.sim.algorithms.base import Algorithm
from foretrain.sim.algorithms.hierarchical import Hierarchical
from foretrain.sim.algorithms.in_switch import InSwitch, InSwitchTree
from foretrain.sim.algorithms.pat import Pat
from foretrain.sim.algorithms.ring import Ring
from foretrain.sim.algorithms.torus import AXES, Torus
from foretrain.sim.algorithms.tree import Tree

_RING, _TREE, _EXCHANGE = Ring(), Tree(), AllToAll()
LIBRARIES: dict[str, tuple[Algorithm, ...]] = {
    "nccl": (_RING, _TREE, InSwitch(), InSwitchTree(), Pat(), _EXCHANGE),
    "rccl": (_RING, _TREE, _EXCHANGE),
    "xla": (_RING, Torus(), Hierarchical(), _EXCHANGE),
    "gloo": (_RING, _EXCHANGE),
}
"""Algorithms by library. **Source:** NVIDIA/nccl and ROCm/rccl, `src/graph/tuning.cc`; facebookincubator/gloo, `allreduce.cc`."""


def algorithms(library: str, topology: str) -> tuple[Algorithm, ...]:
    """Return the algorithms of a library; on a torus, rings follow its axes."""
    found = LIBRARIES[library]
    return tuple(algorithm for algorithm in found if algorithm is not _RING) if topology in AXES and library == "xla" else found
