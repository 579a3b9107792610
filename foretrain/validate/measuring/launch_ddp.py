"""What torch's DistributedDataParallel costs a rank for each tensor of parameters, beside the all-reduce itself."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

from foretrain.validate.measuring.bench import Lab
from foretrain.validate.measuring.bench_collective import together
from foretrain.validate.measuring.counters import UnavailableError
from foretrain.validate.measuring.timer import Call, spread_of


def ddp_cost(tensors: int, tiny: int, lab: Lab) -> dict[str, Any]:
    """Return the seconds per tensor that a step of tiny tensors takes longer in DDP than alone and with an all-reduce of its gradients.

    Raises:
        UnavailableError: where the difference is lost in the noise.
    """
    import torch  # noqa: PLC0415 - torch is heavy and optional
    import torch.distributed as dist  # noqa: PLC0415
    from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415

    group, values, gradients = lab.group(lab.ranks), lab.tensor(tiny), lab.tensor(tensors * tiny)
    module = _chain(tensors, tiny).to(lab.device)
    devices = [torch.cuda.current_device()] if lab.device == "cuda" else None
    wrapped = DistributedDataParallel(module, device_ids=devices, process_group=group)
    alone_s = statistics.median(_slowest(_step(module, module, values), lab))
    exchange_s = statistics.median(_slowest(lambda: dist.all_reduce(gradients, group=group), lab))
    more = [(one - alone_s - exchange_s) / tensors for one in _slowest(_step(wrapped, module, values), lab)]
    spread = spread_of(more)
    if spread.median <= 0:
        raise UnavailableError("what DDP costs is lost in the noise of a step of tiny tensors")
    return {"seconds": asdict(spread)}


def _slowest(call: Call, lab: Lab) -> list[float]:
    """Return, for each sample, the seconds of the slowest rank: all ranks step together."""
    return [max(one) for one in together(call, lab.group(lab.ranks), lab)]


def _chain(tensors: int, tiny: int) -> Any:
    """Return a module that multiplies by every one of its parameters in turn."""
    import torch  # noqa: PLC0415

    class Chain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scales = torch.nn.ParameterList([torch.ones(tiny) for _ in range(tensors)])

        def forward(self, values: Any) -> Any:
            for scale in self.scales:
                values = values * scale
            return values

    return Chain()


def _step(called: Any, module: Any, values: Any) -> Call:
    """Return a step: forward, backward, and the gradients dropped."""

    def step() -> None:
        called(values).sum().backward()
        module.zero_grad(set_to_none=True)

    return step
