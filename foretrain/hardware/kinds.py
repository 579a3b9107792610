"""The kinds of hardware profile, where their library is, and which of their keys are profiles themselves."""

from __future__ import annotations

from pathlib import Path

from foretrain.inherit import Kind
from foretrain.library import Shelf

_LIBRARY = Path(__file__).parent / "library"
FABRIC = Kind(Shelf("fabric", _LIBRARY / "fabrics"))
FACILITY = Kind(Shelf("facility", _LIBRARY / "facilities"))
ACCELERATOR = Kind(Shelf("accelerator", _LIBRARY / "accelerators"))
NODE = Kind(Shelf("node", _LIBRARY / "nodes"), {"accelerator": ACCELERATOR, "scale_up": FABRIC, "scale_out": FABRIC, "facility": FACILITY})
CLUSTER = Kind(
    Shelf("cluster", _LIBRARY / "clusters"),
    {"node": NODE, "scale_out": FABRIC, "facility": FACILITY},
    stand_in={"scale_out": "node", "facility": "node"},
)
KINDS = {"accelerator": ACCELERATOR, "node": NODE, "cluster": CLUSTER, "fabric": FABRIC, "facility": FACILITY}
