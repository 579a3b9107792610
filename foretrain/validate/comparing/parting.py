"""Where a prediction and a measurement of one step part, as plain data: the largest differences first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from foretrain.validate.comparing.profile import NONE, Share, StepProfile
from foretrain.validate.summary import error_pct

Data = dict[str, Any]
LONGEST = 8
"""Kernels that are named, of either side."""


def parting(predicted: StepProfile, measured: StepProfile) -> Data:
    """Return the differences in SI units, predicted less measured: by class, by group of ops, by phase, in launches, and at the host."""
    return {
        "step_s": {
            "predicted": predicted.step_s, "measured": measured.step_s, "error_pct": error_pct(predicted.step_s, measured.step_s),
        },
        "classes": _differences(predicted.breakdown, measured.breakdown),
        "hidden": _differences(predicted.hidden, measured.hidden),
        "groups": _shares(predicted.groups, measured.groups),
        "phases": _differences(predicted.phases, measured.phases),
        "launches": {"predicted": predicted.launches, "measured": measured.launches},
        "host": {side: {"share": one.host_share, "bound": one.host_bound} for side, one in _sides(predicted, measured)},
        "longest": {side: _longest(one) for side, one in _sides(predicted, measured)},
    }  # fmt: skip


def _sides(predicted: StepProfile, measured: StepProfile) -> Iterable[tuple[str, StepProfile]]:
    return (("predicted", predicted), ("measured", measured))


def _differences(predicted: Mapping[str, float], measured: Mapping[str, float]) -> list[Data]:
    return _largest_first(
        {"name": name, "predicted_s": predicted.get(name, 0.0), "measured_s": measured.get(name, 0.0)}
        for name in dict.fromkeys((*predicted, *measured))
    )


def _shares(predicted: Mapping[str, Share], measured: Mapping[str, Share]) -> list[Data]:
    return _largest_first(
        {"name": name, **_share("predicted", predicted.get(name, NONE)), **_share("measured", measured.get(name, NONE))}
        for name in dict.fromkeys((*predicted, *measured))
    )


def _share(side: str, share: Share) -> Data:
    return {f"{side}_s": share.seconds, f"{side}_launches": share.launches, f"{side}_bytes": share.size_bytes or None}


def _largest_first(rows: Iterable[Data]) -> list[Data]:
    """Return rows with their difference, the largest either way first; those without any time are left out."""
    told = [{**row, "difference_s": row["predicted_s"] - row["measured_s"]} for row in rows if row["predicted_s"] or row["measured_s"]]
    return sorted(told, key=lambda row: -abs(row["difference_s"]))


def _longest(profile: StepProfile) -> list[Data]:
    return [
        {"name": name, "seconds": share.seconds, "launches": share.launches} for name, share in list(profile.names.items())[:LONGEST]
    ]
