"""What an outcome is called and grouped by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Names of a row in reports; see `summary.Outcome`."""

    id: str
    source: str
    accelerator: str
    framework: str
    layout: str
    subset: str = "core"
    complete: bool = True
    config_key: str = ""
