"""Software profiles by library name or from a user's own file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretrain.errors import UnknownNameError
from foretrain.inherit import Kind, Tree, read_tree
from foretrain.library import Shelf
from foretrain.software.profile import HostCost, LossMemory, Overlap, Software, TrainingState

if TYPE_CHECKING:
    from foretrain.provenance import Provenance

SOFTWARE = Kind(Shelf("software", Path(__file__).parent / "library"))


def list_software() -> tuple[str, ...]:
    """Return the names of the library's software profiles."""
    return SOFTWARE.shelf.names()


def load_software(name_or_path: str | Path) -> Software:
    """Return a software profile by library name or from a file.

    Raises:
        UnknownNameError: where the library holds no such name.
        ProfileError: where the file is wrong, with every fault in `faults`.
    """
    path = SOFTWARE.shelf.find(str(name_or_path))
    return _library_software(path) if SOFTWARE.shelf.holds(path) else _software(path)


def json_schema(kind: str = "software") -> dict[str, Any]:
    """Return the JSON schema of a software profile."""
    from foretrain.jsonschema import schema_of  # noqa: PLC0415  # brings pydantic
    from foretrain.software.schema import SoftwareFile  # noqa: PLC0415  # brings pydantic

    if kind != "software":
        raise UnknownNameError(f"no kind of software profile is called {kind!r}; use 'software'")
    return schema_of(SoftwareFile)


def provenance(name_or_path: str | Path) -> tuple[Provenance, ...]:
    """Return every figure of a software profile with the text it was read from and its source."""
    from foretrain.provenance import provenance as figures  # noqa: PLC0415  # brings pydantic

    tree, file = _validated(SOFTWARE.shelf.find(str(name_or_path)))
    return figures(tree.data, file)


def _validated(path: Path) -> tuple[Tree, Any]:
    from foretrain.faults import validate  # noqa: PLC0415  # brings pydantic
    from foretrain.software.schema import SoftwareFile  # noqa: PLC0415  # brings pydantic

    tree = read_tree(SOFTWARE, path)
    return tree, validate(SoftwareFile, tree, path)


def _software(path: Path) -> Software:
    from foretrain.provenance import assumed  # noqa: PLC0415  # brings pydantic

    tree, file = _validated(path)
    return Software(
        name=file.name,
        key=file.key or path.stem,
        attention=dict(file.attention),
        fused=frozenset(file.fused),
        state=TrainingState(**vars(file.state)),
        state_fp16=None if file.state_fp16 is None else TrainingState(**vars(file.state_fp16)),
        loss=LossMemory() if file.loss is None else LossMemory(**vars(file.loss)),
        overlap=Overlap(**vars(file.overlap)),
        host=HostCost(**vars(file.host)),
        selective=file.selective,
        scatter_gather=file.scatter_gather,
        outputs_held=file.outputs_held,
        matmul_scale=file.matmul_scale,
        stream_scale=file.stream_scale,
        collective_scale=file.collective_scale,
        context_bytes=file.context_bytes,
        fragmentation=file.fragmentation,
        ends_together=file.ends_together,
        buffers_sent=file.buffers_sent,
        buckets_copied=file.buckets_copied,
        adds_gradients=file.adds_gradients,
        reduced_on_use=file.reduced_on_use,
        regathers=file.regathers,
        drops_gradients=file.drops_gradients,
        channels_last=file.channels_last,
        winograd=file.winograd,
        wide=frozenset(file.wide),
        fp8_scaling=file.fp8_scaling,
        fp8_gather=file.fp8_gather,
        assumed=assumed(tree.data, file),
    )


_library_software = functools.cache(_software)
