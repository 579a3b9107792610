"""A microbenchmark as plain data, and the room that it runs in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol, TypeVar

from foretrain.validate.measuring.timer import Call, Clock, Limit, Timing, clock_of, timed

SIZES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "int64": 8}
"""Bytes of an element."""
TILE = 8192
LIMITS = {"cpu": Limit(most_s=0.2), "cuda": Limit(most_s=0.05, relative=0.005)}
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a plan is made for: a device, and the ranks that may run together on it."""

    device: str
    ranks: int = 1

    @property
    def backend(self) -> str:
        """What the ranks talk through."""
        return "nccl" if self.device == "cuda" else "gloo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One thing to measure. `flop` and `bytes` are those of one call, the least that it must do; `held_bytes` is what it allocates.

    A bench of a `team` runs on all ranks at once. `least_s` is what it cannot be measured under.
    """

    name: str
    dtype: str
    shape: Mapping[str, Any]
    flop: float = 0.0
    bytes: float = 0.0
    held_bytes: float = 0.0
    team: bool = False
    least_s: float = 0.0

    @property
    def key(self) -> str:
        """What names it in a file of measurements."""
        return f"{self.name}/{self.dtype}/" + ",".join(f"{name}={_text(value)}" for name, value in self.shape.items())


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "x".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)


@dataclass(slots=True, kw_only=True)
class Lab:
    """Where a bench runs: a device with its clock, and this process' place among the ranks."""

    device: str
    rank: int = 0
    ranks: int = 1
    clock: Clock = field(init=False)
    limit: Limit = field(init=False)
    _groups: dict[int, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Take the device's clock and limit."""
        self.clock, self.limit = clock_of(self.device), LIMITS[self.device]

    def tensor(self, *size: int, dtype: str = "fp32", grad: bool = False) -> Any:
        """Return a tensor of random numbers: power and clocks depend on what is multiplied."""
        import torch  # noqa: PLC0415 - torch is heavy and optional

        kind, count = torch_dtype(dtype), prod(size)
        if self.device == "cuda":
            made = torch.empty(size, device="cuda", dtype=kind).uniform_(-1, 1)
        else:
            made = torch.empty(TILE).uniform_(-1, 1).to(kind).repeat(-(-count // TILE))[:count].view(size)
        return made.requires_grad_(grad)

    def indices(self, below: int, *size: int) -> Any:
        """Return random indices."""
        import torch  # noqa: PLC0415

        return torch.randint(below, size, device=self.device)

    def time(self, call: Call) -> Timing:
        """Return how long a call takes."""
        return timed(call, clock=self.clock, limit=self.limit)

    def finish(self) -> None:
        """Wait for the device."""
        import torch  # noqa: PLC0415

        if self.device == "cuda":
            torch.cuda.synchronize()

    def group(self, size: int) -> Any:
        """Return the process group of the first ranks; every rank must ask."""
        import torch.distributed as dist  # noqa: PLC0415

        if size not in self._groups:
            self._groups[size] = dist.group.WORLD if size == self.ranks else dist.new_group(list(range(size)))
        return self._groups[size]


class Kind(Protocol):
    """A module of benches of one name."""

    def plan(self, machine: Machine) -> list[Bench]:
        """Return its benches, the most informative first."""

    def measure(self, bench: Bench, lab: Lab) -> dict[str, Any]:
        """Return what a record says beside what the bench does itself; raises what torch raises."""


def torch_dtype(name: str) -> Any:
    """Return torch's type of a name here."""
    import torch  # noqa: PLC0415

    return {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int64": torch.int64}[name]


@contextlib.contextmanager
def math_of(dtype: str, device: str) -> Iterator[None]:
    """Let products of fp32 tensors run in the arithmetic that `dtype` names: fp32 in full or TF32, afterwards as before."""
    import torch  # noqa: PLC0415

    if device != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    cudnn.allow_tf32 = dtype == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        cudnn.allow_tf32 = True  # as torch begins


def scattered(items: Sequence[T]) -> list[T]:
    """Return the items so that every beginning of the list is spread over all of it: first, middle, quarters, and so on."""
    bits = max(1, (len(items) - 1).bit_length())
    order = sorted(range(2**bits), key=lambda place: int(f"{place:0{bits}b}"[::-1], 2))
    return [items[place] for place in order if place < len(items)]


def merged(*lists: Sequence[T]) -> list[T]:
    """Return the items of several lists in turn, each once."""
    found: list[T] = []
    for place in range(max((len(one) for one in lists), default=0)):
        for one in lists:
            if place < len(one) and one[place] not in found:
                found.append(one[place])
    return found
