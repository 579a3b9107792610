"""What a published description of a network says: technology, NICs per node, bandwidth, slices."""

from __future__ import annotations

import re
from dataclasses import dataclass

GBIT = 1e9 / 8
"""Bytes per second in one Gbit/s."""

_PORT_GBIT = {
    "HDR100": 100, "NDR200": 200, "HDR200": 200, "NDR400": 400,
    "QDR": 40, "FDR": 56, "EDR": 100, "HDR": 200, "NDR": 400, "XDR": 800,
}  # fmt: skip
"""Gbit/s of one InfiniBand port by the name of its generation. Source: InfiniBand Trade Association roadmap."""

_WIDEST_PORT_GBIT = 800
"""No port of today carries more; a larger figure is that of the whole node."""

_TECHNOLOGIES = (
    ("azure", r"\bAzure|\bNDm? ?A100"),
    ("efa", r"\bEFA|Elastic Fabric"),
    ("omni-path", r"Omni-?Path|\bOPA\b"),
    ("infiniband", r"Infini-?band|\bIB\b|\b[QFEHNX]DR(100|200|400)?\b"),
    ("roce", r"RoCE|\bRDMA\b|TCPX|GPUDirect|Ethernet|GbE\b"),
)
_NUMBER = r"(\d+(?:\.\d+)?)"
_UNIT = r"(T|G)(?:bps|b/s|bit/s|bits/s|bE\b|b\b|\b)"
_COUNTED = re.compile(rf"(\d+)\s*[x×*]\s*(?:[A-Za-z][\w-]*,?\s+){{0,4}}?{_NUMBER}\s*{_UNIT}", re.IGNORECASE)
_BITS = re.compile(rf"{_NUMBER}\s*{_UNIT}", re.IGNORECASE)
_BYTES = re.compile(rf"{_NUMBER}\s*(T|G)B/s")
_COUNT = re.compile(r"(\d+)\s*[x×*]\s*[A-Za-z]|(\d+)\s+(?:NICs|HCAs|ports|rails)\b", re.IGNORECASE)
_PER_ACCELERATOR = re.compile(r"per\s+(?:GPU|accelerator|rank|chip|device)|/\s*GPU\b|each\s+GPU", re.IGNORECASE)
_SLICES = re.compile(r"(\d+)\s+slices?\b", re.IGNORECASE)
_SILENT = re.compile(r"^$|^(not stated|unknown|not given|unspecified)|^n/?a$", re.IGNORECASE)
_NO_NETWORK = re.compile(r"^none\b|single node|1 node", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network between nodes as a source describes it; None where it does not say. Bandwidth is of a node, one direction."""

    technology: str | None
    nics: int | None
    node_bytes_per_s: float | None
    slices: int = 1


def parse_link(description: str, *, accelerators: int) -> Link:
    """Return what `description` says of the network of a node with so many `accelerators`.

    >>> parse_link("8x HDR InfiniBand 200Gb/s per node", accelerators=8)
    Link(technology='infiniband', nics=8, node_bytes_per_s=200000000000.0, slices=1)
    """
    if _SILENT.search(description) or _NO_NETWORK.search(description):
        return Link(technology=None, nics=None, node_bytes_per_s=None)
    nics, total = _bandwidth(description, accelerators)
    found = _SLICES.search(description)
    return Link(technology=_technology(description), nics=nics, node_bytes_per_s=total, slices=int(found.group(1)) if found else 1)


def says_nothing(description: str) -> bool:
    """Return whether the source leaves the network between nodes open, where there might be one."""
    return bool(_SILENT.search(description)) and not _NO_NETWORK.search(description)


def _technology(description: str) -> str | None:
    for name, pattern in _TECHNOLOGIES:
        if re.search(pattern, description, re.IGNORECASE):
            return name
    return None


def _bandwidth(description: str, accelerators: int) -> tuple[int | None, float | None]:
    """Return NICs per node and bytes per second of the node, each None where the words do not give it."""
    counted = _COUNTED.search(description)
    if counted:
        return _of_node(int(counted.group(1)), _scaled(counted.group(2), counted.group(3)))
    nics = accelerators if _PER_ACCELERATOR.search(description) else _count(description)
    gbit = _gbit(description)
    if gbit is None and nics is not None:
        gbit = _generation(description)
    if gbit is None:
        return nics, None
    return _of_node(nics, gbit)


def _of_node(nics: int | None, gbit: float) -> tuple[int | None, float]:
    """Return the NICs and the bandwidth of the node, for a figure of one port (or of the node, where no port is that fast)."""
    ports = nics if nics is not None and gbit <= _WIDEST_PORT_GBIT else 1
    return nics, ports * gbit * GBIT


def _gbit(description: str) -> float | None:
    in_bytes = _BYTES.search(description)
    if in_bytes:
        return _scaled(in_bytes.group(1), in_bytes.group(2)) * 8
    in_bits = _BITS.search(description)
    return _scaled(in_bits.group(1), in_bits.group(2)) if in_bits else None


def _generation(description: str) -> float | None:
    return next((float(gbit) for name, gbit in _PORT_GBIT.items() if re.search(rf"\b{name}\b", description)), None)


def _count(description: str) -> int | None:
    found = _COUNT.search(description)
    return int(found.group(1) or found.group(2)) if found else None


def _scaled(value: str, prefix: str) -> float:
    """Return a number with the prefix T or G in units of 10^9."""
    return float(value) * (1000.0 if prefix.upper() == "T" else 1.0)
