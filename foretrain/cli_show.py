"""`foretrain list` and `foretrain show`: what the library holds, and what a profile says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from foretrain.charts.words import count
from foretrain.cli_hardware import say_hardware
from foretrain.cli_output import columns, cut, ink, say, say_json
from foretrain.errors import UnknownNameError, UsageError, nearest, shortened
from foretrain.fields import unit_of
from foretrain.hardware import load as hardware
from foretrain.hardware.kinds import FABRIC, FACILITY
from foretrain.library import looks_like_path
from foretrain.models.load import list_models, load_model
from foretrain.models.model import Model
from foretrain.models.timm_name import PREFIX
from foretrain.sim.schedules.registry import SCHEDULES
from foretrain.software import load as software
from foretrain.units import show
from foretrain.yamlfile import read_json_or_yaml

COUNTED = ("clusters", "nodes")
"""Kinds whose names may bear a number of nodes."""
LONGEST_LINE = 16
"""Files that inherit one another which are looked through."""
ASSUMED = ("memory", "estimate")
"""Kinds of source that nobody can look up."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A profile as `show` prints it: a headline, rows of (field, value, source), and the same as plain data."""

    title: str
    rows: Sequence[tuple[str, str, str]]
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shelf:
    """One kind of thing that has names."""

    names: Callable[[], Iterable[str]]
    shown: Callable[[str], Shown]


def run_list(kind: str | None, *, as_json: bool) -> int:
    """Print the names of one kind, or of all, and return the exit status."""
    if kind is None:
        chosen = SHELVES
    elif kind in GROUPS:
        chosen = {name: SHELVES[name] for name in GROUPS[kind]}
    else:
        raise UsageError(f"there is no list of {kind!r}; use one of {', '.join(GROUPS)}{nearest(kind, GROUPS)}")
    names = {name: sorted(shelf.names()) for name, shelf in chosen.items()}
    if as_json:
        say_json(names)
    elif kind == "hardware":
        say_hardware()
    elif len(names) == 1:
        say("\n".join(next(iter(names.values()))))
    else:
        paint = ink()
        say("\n\n".join("\n".join([paint.strong(name), *(f"  {one}" for one in ones)]) for name, ones in names.items()))
    return 0


def run_show(name: str, *, as_json: bool) -> int:
    """Print the profile of that name, whatever its kind, and return the exit status."""
    shown = find(name)
    if as_json:
        say_json(shown.data)
        return 0
    say(ink().strong(shown.title))
    assumed = [source.startswith(ASSUMED) for _, _, source in shown.rows]
    rows = [("* " + path if guess else "  " + path, *rest) for guess, (path, *rest) in zip(assumed, shown.rows, strict=True)]
    say(cut(columns([("  field", "value", "source"), *rows])))
    if any(assumed):
        say(f"* assumed, that is from memory or estimated: {sum(assumed)} of {len(assumed)} figures")
    return 0


def find(name: str) -> Shown:
    """Return what the first kind that knows `name` says of it; a path is tried as every kind.

    Raises:
        UnknownNameError: where no kind knows it, with the nearest names of all kinds.
        ProfileError: where a file is no valid profile of the kind that it looks like.
    """
    base = name.rpartition(":")[0] or name
    for kind, shelf in SHELVES.items():
        if (base if kind in COUNTED else name) in shelf.names():
            return shelf.shown(name)
    if name.startswith(PREFIX):
        return _model(name)
    if looks_like_path(name):
        return SHELVES[_kind_of_file(name)].shown(name)
    known = [one for shelf in SHELVES.values() for one in shelf.names()]
    raise UnknownNameError(f"nothing in the library is called {shortened(name)}{nearest(name, known)} (foretrain list shows all names)")


def _model(name: str) -> Shown:
    model = load_model(name)
    data = {
        "name": model.name, "key": model.key, "kind": "model",
        "parameters": model.parameters, "active_parameters": model.active_parameters or model.parameters,
        "flop_per_sample": model.flop_per_sample(), "activation_bytes_per_sample": model.activation_bytes_per_sample(),
        "layers": model.depth, "hidden": model.hidden, "seq_len": model.seq_len, "image_size": model.image_size,
        "tensor_dims": dict(model.tensor_dims),
        "assumed": list(model.assumed),
    }  # fmt: skip
    return Shown(f"{model.name}: {count(model.parameters)} parameters", _model_rows(model, data), data)


def _model_rows(model: Model, data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        ("parameters", f"{model.parameters:,}", "tied ones counted once"),
        ("active parameters", f"{data['active_parameters']:,}", f"per {model.item}"),
        ("layers", str(model.depth), "that a pipeline can cut"),
        *([("hidden", f"{model.hidden:,}", "")] if model.hidden is not None else []),
        *_size_rows(model),
        ("model FLOPs", show(data["flop_per_sample"], "FLOP"), "per sample, forward and backward"),
        ("activations", show(data["activation_bytes_per_sample"], "B"), "saved per sample, 16 bit, unfused"),
        *((f"{name}", f"{size:,}", "tensor parallelism must divide it") for name, size in model.tensor_dims.items()),
        *(("assumed", "", note) for note in model.assumed),
    ]


def _size_rows(model: Model) -> list[tuple[str, str, str]]:
    if model.seq_len is not None:
        return [("sequence", f"{model.seq_len:,} tokens", "its own; --seq-len for another")]
    return [] if model.image_size is None else [("image", f"{model.image_size} pixels a side", "its own; --image-size for another")]


def _cluster(name: str) -> Shown:
    spec, colon, nodes = name.rpartition(":")
    cluster = hardware.load_cluster(name)
    chips = f"{cluster.nodes:,} nodes, {cluster.accelerators:,} accelerators"
    kind = "node" if colon and nodes.isdecimal() and spec in hardware.list_nodes() else "cluster"
    base = spec if colon and nodes.isdecimal() else name
    return Shown(f"{cluster.name}: {chips}", _figures(hardware.provenance(kind, base)), _plain("cluster", cluster))


def _node(name: str) -> Shown:
    if name.rpartition(":")[0]:
        return _cluster(name)
    node = hardware.load_node(name)
    title = f"{node.name}: {node.accelerators} × {node.accelerator.name}"
    return Shown(title, _figures(hardware.provenance("node", name)), _plain("node", node))


def _accelerator(name: str) -> Shown:
    accelerator = hardware.load_accelerator(name)
    return Shown(accelerator.name, _figures(hardware.provenance("accelerator", name)), _plain("accelerator", accelerator))


def _part(kind: str, name: str) -> Shown:
    """Return what a part of a cluster says that is a profile of its own: a fabric, a facility."""
    found = hardware.provenance(kind, name)
    figures = {one.path: {"value": one.written, "kind": one.kind, "source": one.title} for one in found}
    return Shown(f"{name}: a {kind}", _figures(found), {"kind": kind, "name": name, "figures": figures})


def _software(name: str) -> Shown:
    profile = software.load_software(name)
    return Shown(profile.name, _figures(software.provenance(name)), _plain("software", profile))


def _schedule(name: str) -> Shown:
    doc = (SCHEDULES[name].__doc__ or "").strip().splitlines()
    return Shown(f"{name}: {doc[0]}", [("name", name, "pipeline schedule")], {"name": name, "kind": "schedule", "description": doc[0]})


def _figures(found: Iterable[Any]) -> list[tuple[str, str, str]]:
    """Return a row per figure of a profile, as written in its file, with the kind and title of its source."""
    return [(one.path, _written(one.path, one.written), f"{one.kind}: {one.title}") for one in found]


def _written(path: str, text: str) -> str:
    """Return the text of a figure, with its unit where the file left it to the field."""
    unit = unit_of(path.rpartition(".")[2])
    return f"{text} {unit}" if unit != "1" and text.replace(".", "", 1).isdecimal() else text


def _plain(kind: str, profile: Any) -> dict[str, Any]:
    """Return a profile as data that JSON can hold, in SI units."""
    plain = _listed(asdict(profile))
    assert isinstance(plain, dict)
    return {"kind": kind, **plain}


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _listed(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_listed(one) for one in value]
    return sorted(value) if isinstance(value, frozenset) else value


def _kind_of_file(name: str) -> str:
    """Return the kind that a user's file looks like, by keys that only that kind has, its own or those of what it inherits."""
    path = Path(name if Path(name).exists() else name.rpartition(":")[0] or name).expanduser()
    for _ in range(LONGEST_LINE):
        data = read_json_or_yaml(path)
        base = str(data.get("base", ""))
        for kind, telling in _TELLING.items():
            if data.keys() & telling or base in SHELVES[kind].names():
                return kind
        if not looks_like_path(base):
            break
        path = path.parent / Path(base).expanduser()
    kinds = ", ".join(_TELLING)
    raise UsageError(f"{name[:200]} looks like no profile; it needs a `base:` that foretrain list shows, or keys of one of {kinds}")


_TELLING = {
    "models": {"layers", "hidden", "vocab", "architecture", "config", "model_type", "architectures", "transformers_version"},
    "clusters": {"node", "nodes"},
    "nodes": {"accelerator", "scale_up", "nics"},
    "accelerators": {"peak", "matmul", "compute_units"},
    "software": {"host", "overlap", "fused", "state"},
    "fabrics": {"topology", "domain", "step_latency"},
    "facilities": {"pue", "usd_per_kwh", "co2_g_per_kwh"},
}
SHELVES: Mapping[str, Shelf] = MappingProxyType({
    "models": Shelf(list_models, _model),
    "clusters": Shelf(hardware.list_clusters, _cluster),
    "nodes": Shelf(hardware.list_nodes, _node),
    "accelerators": Shelf(hardware.list_accelerators, _accelerator),
    "software": Shelf(software.list_software, _software),
    "schedules": Shelf(lambda: SCHEDULES, _schedule),
    "fabrics": Shelf(FABRIC.shelf.names, functools.partial(_part, "fabric")),
    "facilities": Shelf(FACILITY.shelf.names, functools.partial(_part, "facility")),
})  # fmt: skip
GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "models": ("models",), "hardware": ("clusters", "nodes", "accelerators", "fabrics", "facilities"), "clusters": ("clusters",),
    "nodes": ("nodes",),
    "accelerators": ("accelerators",), "software": ("software",), "schedules": ("schedules",),
    "fabrics": ("fabrics",), "facilities": ("facilities",),
})  # fmt: skip
