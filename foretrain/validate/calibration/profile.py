"""A calibrated machine as profiles: one of the cluster, one of the software, each naming its parent and how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from foretrain.errors import OutputError
from foretrain.fields import unit_of
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.fabric import Fabric
from foretrain.hardware.measured import Measured
from foretrain.quantity import key_of
from foretrain.validate.calibration.bases import Bases
from foretrain.validate.calibration.stages import Calibrated

DIGITS = 6
SOURCE = "calibration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a calibration comes from: the profiles that it changes, and what is said of the measurement."""

    bases: Bases
    name: str
    date: str
    device: str
    versions: Mapping[str, str]
    residuals: Mapping[str, str]


def write_profiles(found: Calibrated, origin: Origin, folder: Path) -> tuple[Path, Path]:
    """Write `NAME.yaml` (a cluster) and `NAME-software.yaml` into a folder, and return their paths.

    Raises:
        OutputError: where they cannot be written.
    """
    paths = folder / f"{origin.name}.yaml", folder / f"{origin.name}-software.yaml"
    for path, data in zip(paths, (cluster_data(found, origin), software_data(found, origin)), strict=True):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(_text(data), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
    return paths


def cluster_data(found: Calibrated, origin: Origin) -> dict[str, Any]:
    """Return the profile of the cluster: its node, with the accelerator and the fabric inside a node as they were measured."""
    own, inside = found.machine.accelerator, found.machine.cluster.node
    accelerator: dict[str, Any] = {"name": f"{own.name}, calibrated", "key": own.key, "sources": _sources(origin)}
    accelerator |= _changes(found, "accelerator")
    if own.measured is not None:
        accelerator["measured"] = _tables(own.measured)
    fabric: dict[str, Any] = {"sources": _sources(origin), **_changes(found, "scale_up")}
    if inside.scale_up.measured:
        rows = {kind: [list(row) for row in table] for kind, table in inside.scale_up.measured}
        fabric["measured"] = {"value": rows, "source": SOURCE}
    node = {"sources": _sources(origin), "accelerator": accelerator, "scale_up": fabric, **_changes(found, "node")}
    head: dict[str, Any] = {"name": f"{origin.name}, calibrated {origin.date}", "sources": _sources(origin)}
    if not origin.bases.is_node:
        return {"base": origin.bases.cluster, **head, "node": node}
    node |= {"base": origin.bases.cluster, "accelerators": {"value": inside.accelerators, "source": SOURCE}}
    return {**head, "node": node, "nodes": {"value": 1, "source": SOURCE}}


def software_data(found: Calibrated, origin: Origin) -> dict[str, Any]:
    """Return the profile of the software."""
    own = found.machine.software
    said = {"base": origin.bases.software, "name": f"{own.name}, calibrated", "key": own.key, "sources": _sources(origin)}
    return {**said, **_changes(found, "software")}


def _sources(origin: Origin) -> dict[str, Any]:
    return {
        SOURCE: {
            "title": "foretrain calibrate", "kind": "fit", "date": origin.date, "device": origin.device,
            "versions": dict(origin.versions), "residuals": dict(origin.residuals),
        }
    }  # fmt: skip


def _changes(found: Calibrated, part: str) -> dict[str, Any]:
    """Return the numbers of a part that are not the base's, as figures of a profile."""
    changed: dict[str, Any] = {}
    for path in _numbers(found.machine.part(part)):
        whole = f"{part}.{path}"
        if not found.base.has(whole) or found.base.number(whole) != found.machine.number(whole):
            _put(changed, _keys(path), {"value": _said(path.rsplit(".", 1)[-1], path, found.machine.number(whole)), "source": SOURCE})
    return changed


def _numbers(at: Any, above: str = "") -> list[str]:
    """Return the paths of all numbers below, but for tables, and for parts with a profile of their own."""
    found: list[str] = []
    inner = at.items() if isinstance(at, Mapping) else [(one.name, getattr(at, one.name)) for one in fields(at)]
    for name, value in inner:
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.append(above + name)
        elif isinstance(value, Mapping) or (is_dataclass(value) and not isinstance(value, _PARTS)):
            found += _numbers(value, f"{above}{name}.")
    return found


_PARTS = (Measured, Accelerator, Fabric)
_INTO = {"memory_bytes": ("memory", "capacity"), "memory_bytes_per_s": ("memory", "bandwidth")}
_ALIASES = {
    "half_bytes": "half_size", "half_bytes_per_rank": "half_size_per_rank", "island_bytes_per_s": "island_bandwidth",
    "host_bytes_per_s": "host_bandwidth", "nic_bytes_per_s": "nic_bandwidth", "host_memory_bytes_per_s": "host_memory_bandwidth",
}  # fmt: skip


def _keys(path: str) -> list[str]:
    """Return the keys of a profile for a path of the dataclass."""
    if path in _INTO:
        return list(_INTO[path])
    return [_ALIASES.get(name, key_of(name)) for name in path.split(".")]


def _put(into: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        into = into.setdefault(key, {})
    into[keys[-1]] = value


def _said(name: str, path: str, value: float) -> Any:
    """Return a number with the unit of its field: its own name's, or that of the mapping it stands in."""
    unit = unit_of(name)
    if unit == "1" and "." in path:
        unit = unit_of(path.split(".")[-2])
    rounded = float(f"{value:.{DIGITS}g}")
    return rounded if unit == "1" else f"{rounded:.{DIGITS}g} {unit}"


def _tables(measured: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {
        "products": {dtype: _lists(rows) for dtype, rows in measured.products.items()},
        "convolutions": {dtype: {way: _lists(rows) for way, rows in tables.items()} for dtype, tables in measured.convolutions.items()},
        "attention": {dtype: {way: _lists(rows) for way, rows in tables.items()} for dtype, tables in measured.attention.items()},
        "streams": _lists(measured.streams),
        "slowness": {dtype: dict(classes) for dtype, classes in measured.slowness.items()},
    }
    return {name: {"value": value, "source": SOURCE} for name, value in found.items() if value}


def _lists(rows: tuple[tuple[float, ...], ...]) -> list[list[float]]:
    return [[int(one) if float(one).is_integer() and one < 1e15 else one for one in row] for row in rows]


def _text(data: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(dict(data), sort_keys=False, default_flow_style=None, width=140, allow_unicode=True))
