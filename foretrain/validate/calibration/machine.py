"""What is calibrated: a cluster and a software profile, and their numbers by path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from foretrain.errors import UsageError
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.cluster import Cluster
from foretrain.software.profile import Software

PARTS = ("accelerator", "scale_up", "scale_out", "node", "software")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A cluster and what runs on it."""

    cluster: Cluster
    software: Software

    @property
    def accelerator(self) -> Accelerator:
        """What it is made of."""
        return self.cluster.node.accelerator

    def number(self, path: str) -> float:
        """Return the number at a path such as `accelerator.matmul.sustained.bf16` or `software.host.launch_s`."""
        part, *rest = path.split(".")
        at: Any = self.part(part)
        for name in rest:
            at = at[name] if isinstance(at, Mapping) else getattr(at, name)
        return float(at)

    def has(self, path: str) -> bool:
        """Tell whether there is a number at a path."""
        try:
            self.number(path)
        except (KeyError, AttributeError, TypeError):
            return False
        return True

    def set(self, values: Mapping[str, float]) -> Machine:
        """Return the machine with the numbers at these paths."""
        made = self
        for path, value in values.items():
            part, *rest = path.split(".")
            made = made._with(part, _changed(made.part(part), rest, value))
        return made

    def on(self, accelerator: Accelerator) -> Machine:
        """Return the machine with another accelerator."""
        return self._with("accelerator", accelerator)

    def part(self, name: str) -> Any:
        """Return a part by its name."""
        node = self.cluster.node
        parts = {
            "accelerator": node.accelerator, "scale_up": node.scale_up, "scale_out": self.cluster.scale_out, "node": node,
            "software": self.software,
        }  # fmt: skip
        if name not in parts:
            raise UsageError(f"a machine has no part {name!r}; it has {', '.join(PARTS)}")
        return parts[name]

    def _with(self, name: str, part: Any) -> Machine:
        cluster = self.cluster
        if name == "software":
            return replace(self, software=part)
        if name == "scale_out":
            return replace(self, cluster=replace(cluster, scale_out=part))
        node = part if name == "node" else replace(cluster.node, **{name: part})
        return replace(self, cluster=replace(cluster, node=node))


def _changed(at: Any, names: list[str], value: float) -> Any:
    if not names:
        return value
    name, *rest = names
    if isinstance(at, Mapping):
        return {**at, name: _changed(at.get(name), rest, value)}
    return replace(at, **{name: _changed(getattr(at, name), rest, value)})
