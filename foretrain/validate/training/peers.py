"""How the processes of a case agree about what is measured, beside what the case itself sends."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class Peers:
    """All processes of a launch, on a group of their own that never touches a GPU."""

    def __init__(self) -> None:
        self.count = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self._group = dist.new_group(backend="gloo") if self.count > 1 else None

    def decided(self, number: int) -> int:
        """Return the number that the first process gave."""
        if self._group is None:
            return number
        told = torch.tensor(number)
        dist.broadcast(told, 0, group=self._group)
        return int(told)

    def each(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        if self._group is None:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value, group=self._group)
        return found

    def meet(self) -> None:
        """Wait for all processes."""
        if self._group is not None:
            dist.barrier(group=self._group)
