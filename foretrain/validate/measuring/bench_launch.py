"""What the host pays for an op whatever its size, and what the device waits between two.

`seconds` are the host's per op (forward, grad, backward, module), the device's per kernel of a chain (gap, graph), the host's per
replay of a graph (replay), or the host's more per tensor of parameters (ddp).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from foretrain.validate.measuring.bench import Bench, Lab, Machine
from foretrain.validate.measuring.launch_ddp import ddp_cost

CHAIN = 64
"""Ops that follow one another in a call."""
TINY = 16
DDP_S = 3.0
"""What torch takes to load DDP and run its first steps."""
WHATS = ("forward", "backward", "module", "grad", "linear", "view", "inplace", "allocate", "module_grad")
"""An op without a graph; one backward; a module's call around an op; an op that joins a graph; a small layer; a view; …"""
DEVICE_WHATS = ("gap", "graph", "replay")


def plan(machine: Machine) -> list[Bench]:
    """Return the costs of the host, those of a device after the first few."""
    whats = (*WHATS[:3], *DEVICE_WHATS, *WHATS[3:]) if machine.device == "cuda" else WHATS
    benches = [Bench(name="launch", dtype="fp32", shape={"what": what, "chain": CHAIN}) for what in whats]
    if machine.ranks > 1:
        shape = {"what": "ddp", "chain": CHAIN, "ranks": machine.ranks}
        benches.append(Bench(name="launch", dtype="fp32", shape=shape, team=True, least_s=DDP_S))
    return benches


def measure(bench: Bench, lab: Lab) -> dict[str, Any]:
    """Time a chain and divide."""
    what = bench.shape["what"]
    if what == "ddp":
        return ddp_cost(CHAIN, TINY, lab)
    if what in DEVICE_WHATS:
        return _device(what, lab)
    timing = lab.time(_call(what, lab))
    return {"seconds": _share(asdict(timing.wall_s)), "cpu_s": _share(asdict(timing.cpu_s))}


def _share(spread: dict[str, Any]) -> dict[str, Any]:
    return {name: value if name == "repeats" else value / CHAIN for name, value in spread.items()}


def _call(what: str, lab: Lab) -> Any:
    """Return the call of a chain of tiny ops."""
    import torch  # noqa: PLC0415 - torch is heavy and optional

    values, leaf = lab.tensor(TINY), lab.tensor(TINY, grad=True)
    rows = lab.tensor(2, TINY)
    layer = torch.nn.Linear(TINY, TINY, device=lab.device)
    module = torch.nn.Sequential(*[torch.nn.ReLU() for _ in range(CHAIN)])
    weight = layer.weight.detach()
    if what == "backward":
        result = module(leaf)
        return lambda: torch.autograd.grad(result, leaf, values, retain_graph=True)
    return {
        "forward": lambda: _chained(torch.relu, values),
        "grad": lambda: _chained(torch.relu, leaf),
        "module": lambda: module(values),
        "module_grad": lambda: module(leaf),
        "linear": lambda: _chained(lambda rows: torch.nn.functional.linear(rows, weight), rows),
        "view": lambda: _chained(lambda rows: rows.view(2, TINY), rows),
        "inplace": lambda: _chained(lambda values: values.mul_(1.0), values),
        "allocate": lambda: _chained(torch.empty_like, values),
    }[what]


def _chained(op: Any, values: Any) -> Any:
    for _ in range(CHAIN):
        values = op(values)
    return values


def _device(what: str, lab: Lab) -> dict[str, Any]:
    """Time dependent small kernels that are queued, or captured in a graph, on the device; or the host that starts the graph."""
    import torch  # noqa: PLC0415

    values = lab.tensor(TINY)
    if what == "gap":
        timing = lab.time(lambda: _chained(torch.relu, values))
        return {"seconds": _share(asdict(timing.seconds)), "host_s": _share(asdict(timing.wall_s))}
    graph: Any = torch.cuda.CUDAGraph()
    cuda: Any = torch.cuda
    main, side = cuda.current_stream(), cuda.Stream()
    side.wait_stream(main)
    with torch.cuda.stream(side):
        _chained(torch.relu, values)
    main.wait_stream(side)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        _chained(torch.relu, values)
    timing = lab.time(graph.replay)
    if what == "replay":
        return {"seconds": asdict(timing.wall_s), "cpu_s": asdict(timing.cpu_s)}
    return {"seconds": _share(asdict(timing.seconds))}
