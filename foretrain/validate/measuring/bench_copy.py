"""Copies between the host's memory and a device, pinned or not, both ways, by size."""

from __future__ import annotations

from typing import Any

from foretrain.validate.measuring.bench import Bench, Lab, Machine, merged

SIZES_BYTES = (2**26, 2**20, 2**14, 2**23, 2**17, 2**28)
VARIANTS = ((True, "to_device"), (False, "to_device"), (True, "from_device"), (False, "from_device"))


def plan(machine: Machine) -> list[Bench]:
    """Return the copies; a CPU has none."""
    if machine.device == "cpu":
        return []
    return merged([_bench(size, pinned, direction) for size in SIZES_BYTES for pinned, direction in VARIANTS if size <= 2**26 or pinned])


def _bench(size: int, pinned: bool, direction: str) -> Bench:  # noqa: FBT001
    return Bench(
        name="host_copy", dtype="fp32", shape={"bytes": size, "pinned": pinned, "direction": direction}, bytes=size, held_bytes=size
    )


def measure(bench: Bench, lab: Lab) -> dict[str, Any]:
    """Time one copy, which does not wait for the host where its memory is pinned."""
    import torch  # noqa: PLC0415 - torch is heavy and optional

    count = bench.shape["bytes"] // 4
    far = lab.tensor(count)
    near = torch.ones(count, pin_memory=bench.shape["pinned"])
    into, out_of = (far, near) if bench.shape["direction"] == "to_device" else (near, far)
    return lab.time(lambda: into.copy_(out_of, non_blocking=True)).data()
