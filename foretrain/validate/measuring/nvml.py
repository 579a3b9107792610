"""One GPU as NVIDIA's management library sees it: read, never set. Its Python package, nvidia-ml-py, is optional."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from foretrain.validate.measuring.counters import UnavailableError

POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A handle of a GPU with the library that understands it."""

    library: Any
    handle: Any

    def read(self, what: str, *args: Any) -> Any:
        """Return what the library's function `what` says of this GPU.

        Raises:
            UnavailableError: with the library's reason; also where the library has no such function.
        """
        try:
            return getattr(self.library, what)(self.handle, *args)
        except Exception as error:  # the library has its own tree of errors, which is not known where it is absent
            raise UnavailableError(f"{what}: {error}") from error

    def constant(self, name: str) -> Any:
        """Return a constant of the library; 0, the first of every enumeration of it, where it has none of that name."""
        return getattr(self.library, name, 0)


def open_gpu(index: int = 0, *, library: Any = None) -> Gpu:
    """Return the GPU that torch calls `cuda:index`; NVML counts the machine's GPUs, torch the visible ones.

    Raises:
        UnavailableError: where nvidia-ml-py, the driver or the GPU is missing.
    """
    library = library or _library()
    try:
        library.nvmlInit()
        uuid = _torch_uuid(index)
        handle = library.nvmlDeviceGetHandleByUUID(uuid) if uuid else library.nvmlDeviceGetHandleByIndex(_visible(index))
    except Exception as error:
        raise UnavailableError(f"NVML has no GPU {index}: {error}") from error
    return Gpu(library=library, handle=handle)


def _library() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        raise UnavailableError("nvidia-ml-py is not installed; pip install 'foretrain[calibrate]'") from error


def _torch_uuid(index: int) -> str:
    """Return the UUID of torch's GPU, or an empty text where torch is not in use or too old to tell."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    found = str(getattr(torch.cuda.get_device_properties(index), "uuid", ""))
    return found if not found or found.startswith(("GPU-", "MIG-")) else f"GPU-{found}"


def _visible(index: int) -> int:
    """Return the machine's number of a visible GPU."""
    listed = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    return int(listed[index]) if index < len(listed) and listed[index].isdigit() else index


class EnergyCounter:
    """The GPU's own total of millijoules, since Volta. It moves in steps of tens of milliseconds: windows of seconds hide them."""

    source = "nvml-energy"

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._began_mj = self._total_mj()

    def start(self) -> None:
        """Begin a window."""
        self._began_mj = self._total_mj()

    def stop(self) -> float:
        """Return the joules since; a counter that stood still or ran backwards is lost, not zero."""
        spent_mj = self._total_mj() - self._began_mj
        if spent_mj <= 0:
            raise UnavailableError(f"the energy counter of NVML moved by {spent_mj} mJ")
        return spent_mj / 1e3

    def _total_mj(self) -> int:
        return int(self._gpu.read("nvmlDeviceGetTotalEnergyConsumption"))


class PowerPolling:
    """Power read every 50 ms by a thread, and integrated. Newer boards report the mean of the last second, so windows must be long."""

    source = "nvml-power"

    def __init__(self, gpu: Gpu, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._gpu, self._clock = gpu, clock
        self._lost = ""
        self._samples: list[tuple[float, float]] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._sample()

    def start(self) -> None:
        """Begin a window and the thread that reads."""
        self._lost, self._samples = "", []
        self._done.clear()
        self._sample()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Return the joules since, by the trapezoid rule."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if not self._lost:
            self._sample()
        if self._lost:
            raise UnavailableError(self._lost)
        pairs = zip(self._samples, self._samples[1:], strict=False)
        return sum((at - before) * (watts + earlier) / 2 for (before, earlier), (at, watts) in pairs)

    def _sample(self) -> None:
        watts = float(self._gpu.read("nvmlDeviceGetPowerUsage")) / 1e3
        if watts <= 0:
            raise UnavailableError(f"NVML reports a power of {watts:g} W")
        self._samples.append((self._clock(), watts))

    def _poll(self) -> None:
        while not self._done.wait(POLL_S):
            try:
                self._sample()
            except UnavailableError as error:
                self._lost = str(error)
                return


def energy_counter(index: int, *, library: Any = None) -> EnergyCounter | PowerPolling:
    """Return the best counter that NVML has for torch's GPU `index`.

    Raises:
        UnavailableError: where it has none.
    """
    gpu = open_gpu(index, library=library)
    with contextlib.suppress(UnavailableError):
        return EnergyCounter(gpu)
    return PowerPolling(gpu)
