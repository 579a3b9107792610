"""The processes of a case as a mesh: one dimension for each degree of its plan, in the plan's order."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from foretrain.sim.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those of a case. `mesh` is None where there is one alone."""

    plan: Plan
    mesh: DeviceMesh | None

    def group(self, name: str) -> DeviceMesh | None:
        """Return the processes along `dp`, `tp` or `pp`, None where it is alone there."""
        return self.mesh[name] if self.mesh is not None and getattr(self.plan, name) > 1 else None

    def sharded(self) -> DeviceMesh:
        """Return the replicas that FSDP shards over: with a first dimension of copies where they are fewer than all (HSDP)."""
        assert self.mesh is not None
        return self.mesh["copies", "dp"] if self.plan.shards < self.plan.dp else self.mesh["dp"]

    def at(self, name: str) -> int:
        """Return this process's place along `dp`, `tp` or `pp`."""
        if getattr(self.plan, name) == 1 or self.mesh is None:
            return 0
        place = self.mesh.get_local_rank(name)
        if name == "dp" and _copies(self.plan) > 1:
            place += self.mesh.get_local_rank("copies") * self.plan.shards
        return int(place)

    @property
    def rank(self) -> int:
        """Its number among all."""
        return dist.get_rank() if self.mesh is not None else 0

    @property
    def count(self) -> int:
        """How many there are."""
        return dist.get_world_size() if self.mesh is not None else 1


def ranks_of(plan: Plan, device: str) -> Ranks:
    """Return the mesh of a plan over all processes; every one of them calls it."""
    if not dist.is_initialized():
        return Ranks(plan=plan, mesh=None)
    names, sizes = list[str](), list[int]()
    for name in reversed(plan.order.split("-")):  # a mesh names the slowest first
        if name == "dp" and _copies(plan) > 1:
            names, sizes = [*names, "copies", "dp"], [*sizes, _copies(plan), plan.shards]
        else:
            names, sizes = [*names, name], [*sizes, getattr(plan, name)]
    return Ranks(plan=plan, mesh=init_device_mesh(device, tuple(sizes), mesh_dim_names=tuple(names)))


def _copies(plan: Plan) -> int:
    """Return how many whole copies of sharded state the replicas hold."""
    return plan.dp // plan.shards if plan.zero >= 2 else 1
