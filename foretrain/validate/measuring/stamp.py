"""What was measured on: machine, versions and settings as they were found. Nothing is changed."""

from __future__ import annotations

import datetime
import importlib.util
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foretrain.errors import OutputError, UsageError
from foretrain.validate.measuring import host
from foretrain.validate.measuring.counters import UnavailableError
from foretrain.validate.measuring.nvml import Gpu, open_gpu
from foretrain.validate.records import Record, append_record, of_kind, read_records

KEY = "stamp"


def opened(path: Path, device: str) -> list[Record]:
    """Return the records of a file, having seen that it can be written and is of this device; a new one gets its stamp, made with torch.

    Raises:
        UsageError: where it holds measurements of another device.
        OutputError: where it cannot be written.
    """
    try:
        found = read_records(path) if path.exists() else []
        if found:
            with path.open("ab"):
                pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; give a file that you may write to") from error
    stamps = of_kind(found, "stamp")
    if not stamps and importlib.util.find_spec("torch") is not None:
        append_record(path, stamp_record(device))
    elif stamps and stamps[0].data.get("device") != device:
        raise UsageError(f"{path} holds measurements of {stamps[0].data.get('device')}, not of {device}; give another file")
    return found


def stamp_record(device: str, index: int = 0, *, library: Any = None) -> Record:
    """Return the stamp of this machine; `library` stands in for pynvml."""
    return Record(kind="stamp", key=KEY, data=stamp(device, index, library=library))


def stamp(device: str, index: int = 0, *, library: Any = None) -> dict[str, Any]:
    """Return machine, versions and settings; what could not be read is null, and its reason stands under `absent`."""
    absent: dict[str, str] = {}
    gpu = _gpu(index, absent, library) if device == "cuda" else None
    processor = _processor(absent)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "device_name": (gpu["name"] if gpu else None) or (processor["model"] if device == "cpu" else _torch_name(index)),
        "versions": _versions(device, gpu),
        "gpu": gpu,
        "cpu": processor,
        "absent": absent,
    }


def _processor(absent: dict[str, str]) -> dict[str, Any]:
    return {
        "model": host.cpu_model(),
        "cores": host.cores(),
        "load": host.load(),
        "clock_hz": host.clock_hz(),
        "memory_bytes": _try(host.total_bytes, absent, "cpu.memory_bytes"),
    }


def _versions(device: str, gpu: Mapping[str, Any] | None) -> dict[str, str | None]:
    import torch  # noqa: PLC0415 - torch is heavy and optional

    cudnn: Any = torch.backends.cudnn
    return {
        "python": platform.python_version(),
        "os": platform.platform(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": str(cudnn.version()) if device == "cuda" else None,
        "nccl": _nccl() if device == "cuda" else None,
        "driver": gpu["driver"] if gpu else None,
    }


def _nccl() -> str | None:
    import torch  # noqa: PLC0415

    nccl: Any = torch.cuda.nccl
    try:
        return ".".join(str(one) for one in nccl.version())
    except Exception:  # builds of torch without NCCL fail here in several ways
        return None


def _torch_name(index: int) -> str:
    import torch  # noqa: PLC0415

    return str(torch.cuda.get_device_name(index))


def _gpu(index: int, absent: dict[str, str], library: Any) -> dict[str, Any] | None:
    try:
        gpu = open_gpu(index, library=library)
    except UnavailableError as error:
        absent["gpu"] = str(error)
        return None
    sm, memory = gpu.constant("NVML_CLOCK_SM"), gpu.constant("NVML_CLOCK_MEM")
    readings: dict[str, Callable[[], Any]] = {
        "name": lambda: _text(gpu.read("nvmlDeviceGetName")),
        "driver": lambda: _driver(gpu),
        "memory_bytes": lambda: int(gpu.read("nvmlDeviceGetMemoryInfo").total),
        "used_bytes": lambda: int(gpu.read("nvmlDeviceGetMemoryInfo").used),
        "sm_clock_hz": lambda: 1e6 * gpu.read("nvmlDeviceGetClockInfo", sm),
        "memory_clock_hz": lambda: 1e6 * gpu.read("nvmlDeviceGetClockInfo", memory),
        "max_sm_clock_hz": lambda: 1e6 * gpu.read("nvmlDeviceGetMaxClockInfo", sm),
        "max_memory_clock_hz": lambda: 1e6 * gpu.read("nvmlDeviceGetMaxClockInfo", memory),
        "power_limit_w": lambda: gpu.read("nvmlDeviceGetEnforcedPowerLimit") / 1e3,
        "default_power_limit_w": lambda: gpu.read("nvmlDeviceGetPowerManagementDefaultLimit") / 1e3,
        "temperature_c": lambda: gpu.read("nvmlDeviceGetTemperature", gpu.constant("NVML_TEMPERATURE_GPU")),
    }
    return {name: _try(reading, absent, f"gpu.{name}") for name, reading in readings.items()}


def _driver(gpu: Gpu) -> str:
    try:
        return _text(gpu.library.nvmlSystemGetDriverVersion())
    except Exception as error:
        raise UnavailableError(f"nvmlSystemGetDriverVersion: {error}") from error


def _text(value: Any) -> str:
    """Return a text; older bindings give bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _try(reading: Callable[[], Any], absent: dict[str, str], name: str) -> Any:
    try:
        return reading()
    except UnavailableError as error:
        absent[name] = str(error)
        return None
