"""Accelerators, nodes and clusters by library name or from a user's own file.

A part of a profile may be a name (`accelerator: h100-sxm`), a mapping, or a mapping with a base, and every profile may inherit
another (`base: dgx-h100`). What is wrong with a file is reported at once, in one ProfileError.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretrain.errors import ProfileError, UnknownNameError, nearest, shortened
from foretrain.fields import read_count
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.kinds import ACCELERATOR, CLUSTER, NODE
from foretrain.hardware.node import Node
from foretrain.inherit import Kind
from foretrain.library import looks_like_path
from foretrain.yamlfile import read_mapping

if TYPE_CHECKING:
    from foretrain.provenance import Provenance


def list_accelerators() -> tuple[str, ...]:
    """Return the names of the library's accelerators."""
    return ACCELERATOR.shelf.names()


def list_nodes() -> tuple[str, ...]:
    """Return the names of the library's nodes; `NAME:COUNT` is a cluster of them."""
    return NODE.shelf.names()


def list_clusters() -> tuple[str, ...]:
    """Return the names of the library's clusters."""
    return CLUSTER.shelf.names()


def load_accelerator(name_or_path: str | Path) -> Accelerator:
    """Return an accelerator by library name or from a file.

    Raises:
        UnknownNameError: where the library holds no such name.
        ProfileError: where the file is wrong, with every fault in `faults`.
    """
    path = ACCELERATOR.shelf.find(str(name_or_path))
    from foretrain.hardware import read  # noqa: PLC0415  # brings pydantic; `import foretrain` stays light

    return read.accelerator(path)


def load_node(name_or_path: str | Path) -> Node:
    """Return a node by library name or from a file; raises as `load_accelerator` does."""
    path = NODE.shelf.find(str(name_or_path))
    from foretrain.hardware import read  # noqa: PLC0415  # brings pydantic

    return read.node(path)


def load_cluster(spec: str | Path) -> Cluster:
    """Return the cluster that `spec` names: `NODE:COUNT`, a cluster's name, a cluster's name with another count, or a file.

    Raises:
        UnknownNameError: where neither library holds the name.
        ProfileError: where the count is none, or the file is wrong, with every fault in `faults`.
    """
    name, count = _split(str(spec))
    nodes = None if count is None else _count(str(spec), count)
    path, kind = _find_cluster(name)
    if kind is NODE and nodes is None:
        raise ProfileError(f"{name} is a node; say how many of them make the cluster, for example '{name}:16'")
    from foretrain.hardware import read  # noqa: PLC0415  # brings pydantic

    return read.cluster(path, kind, nodes)


def json_schema(kind: str) -> dict[str, Any]:
    """Return the JSON schema of a profile of `kind`, one of accelerator, node, cluster, fabric and facility."""
    from foretrain.hardware import read  # noqa: PLC0415  # brings pydantic

    return read.json_schema(kind)


def provenance(kind: str, name_or_path: str | Path) -> tuple[Provenance, ...]:
    """Return every figure of a profile of `kind` with the text it was read from and its source."""
    from foretrain.hardware import read  # noqa: PLC0415  # brings pydantic

    return read.figures(kind, str(name_or_path))


def _split(spec: str) -> tuple[str, str | None]:
    name, colon, count = spec.rpartition(":")
    # A drive letter or a colon in a folder's name is no count.
    return (name, count) if colon and name and "/" not in count and "\\" not in count else (spec, None)


def _count(spec: str, count: str) -> int:
    try:
        return read_count(count)
    except ProfileError as error:
        raise ProfileError(f"{spec!r}: number of nodes {error}") from None


def _find_cluster(name: str) -> tuple[Path, Kind]:
    if looks_like_path(name):
        path = CLUSTER.shelf.find(name)
        return path, _kind_of_file(path)
    for kind in (CLUSTER, NODE):
        if name in kind.shelf.names():
            return kind.shelf.find(name), kind
    known = (*list_clusters(), *list_nodes())
    raise UnknownNameError(
        f"no cluster or node is called {shortened(name)}{nearest(name, known)}"
        " (foretrain list shows all; a path such as ./mine.yaml is read as a file)"
    )


def _kind_of_file(path: Path) -> Kind:
    """Return whether a file describes a cluster or a node: a cluster has nodes, or inherits a cluster."""
    for _ in range(100):
        raw = read_mapping(path)
        base = raw.get("base")
        if "node" in raw or "nodes" in raw or base in list_clusters():
            return CLUSTER
        if not isinstance(base, str) or not looks_like_path(base):
            break
        path = CLUSTER.shelf.find(base, path)
    return NODE
