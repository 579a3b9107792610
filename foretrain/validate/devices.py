"""Which device is meant, and how many of them are there."""

from __future__ import annotations

from foretrain.errors import UsageError, nearest

DEVICES = ("cpu", "cuda")


def device_of(name: str) -> str:
    """Return the device that a name means; `auto` is cuda where torch sees a GPU.

    Raises:
        UsageError: for a name that is none.
    """
    if name == "auto":
        return "cuda" if gpus() else "cpu"
    if name not in DEVICES:
        raise UsageError(f"device {name!r} is unknown; use auto, {' or '.join(DEVICES)}{nearest(name, DEVICES)}")
    return name


def gpus() -> int:
    """Return how many GPUs torch sees, none where it is missing."""
    try:
        import torch  # noqa: PLC0415  # torch is heavy and optional
    except ImportError:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
