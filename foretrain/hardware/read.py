"""Hardware profiles read and checked. Imports pydantic, so `foretrain.hardware.load` imports it when the first profile is read."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from foretrain.errors import UnknownNameError
from foretrain.faults import validate
from foretrain.hardware import build, schema
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.kinds import ACCELERATOR, KINDS, NODE
from foretrain.hardware.node import Node
from foretrain.inherit import Kind, Tree, read_library, read_tree
from foretrain.jsonschema import schema_of
from foretrain.provenance import Provenance, provenance

_MODELS: dict[str, Any] = {
    "accelerator": schema.AcceleratorFile,
    "node": schema.NodeFile,
    "cluster": schema.ClusterFile,
    "fabric": schema.FabricFile,
    "facility": schema.FacilityFile,
}


def json_schema(kind: str) -> dict[str, Any]:
    """Return the JSON schema of a kind of profile."""
    return schema_of(_MODELS[known_kind(kind)])


def figures(kind: str, name_or_path: str) -> tuple[Provenance, ...]:
    """Return every figure of a profile with its source."""
    tree, file = _validated(kind, KINDS[known_kind(kind)].shelf.find(name_or_path))
    return provenance(tree.data, file)


def known_kind(kind: str) -> str:
    """Return `kind` where there is such a kind of profile."""
    if kind not in _MODELS:
        raise UnknownNameError(f"no kind of hardware profile is called {kind!r}; use one of {', '.join(_MODELS)}")
    return kind


def accelerator(path: Path) -> Accelerator:
    """Return the accelerator in `path`; library files are read once."""
    return _library_accelerator(path) if ACCELERATOR.shelf.holds(path) else _accelerator(path)


def node(path: Path) -> Node:
    """Return the node in `path`; library files are read once."""
    return _library_node(path) if NODE.shelf.holds(path) else _node(path)


def cluster(path: Path, kind: Kind, nodes: int | None) -> Cluster:
    """Return the cluster in `path`, or one of `nodes` nodes where it is a node; library files are read once."""
    return _library_cluster(path, kind, nodes) if kind.shelf.holds(path) else _cluster(path, kind, nodes)


def forget() -> None:
    """Drop what is kept of the library, as a fresh process would find it."""
    for cached in (_library_accelerator, _library_node, _library_cluster, read_library):
        cached.cache_clear()


def _validated(kind: str, path: Path) -> tuple[Tree, Any]:
    tree = read_tree(KINDS[kind], path)
    return tree, validate(_MODELS[kind], tree, path)


def _accelerator(path: Path) -> Accelerator:
    tree, file = _validated("accelerator", path)
    return build.accelerator(file, tree.data, path.stem)


def _node(path: Path) -> Node:
    tree, file = _validated("node", path)
    return build.node(file, tree.data, path.stem)


def _cluster(path: Path, kind: Kind, nodes: int | None) -> Cluster:
    tree, file = _validated(kind.shelf.what, path)
    if isinstance(file, schema.NodeFile):
        return build.cluster_of(f"{path.stem}:{nodes}", file, nodes or 1, tree.data, path.stem)
    chosen = file if nodes is None else file.model_copy(update={"nodes": nodes, "name": f"{path.stem}:{nodes}"})
    return build.cluster(chosen, tree.data, path.stem)


_library_accelerator = functools.cache(_accelerator)
_library_node = functools.cache(_node)
_library_cluster = functools.lru_cache(maxsize=256)(_cluster)
