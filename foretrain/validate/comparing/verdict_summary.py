"""What verdicts come to: how many cases were predicted, how far off, and in words."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from foretrain.validate.comparing.verdict import FAIR_PCT, GOOD_PCT, WORDS, Verdict, verdict_data

Summary = dict[str, Any]


def verdict_summary(found: Sequence[Verdict]) -> Summary:
    """Return counts, coverage, and absolute and signed errors in per cent of the measurement.

    A case that was not predicted, or whose measurement failed, counts against coverage.
    """
    errors = [one.error_pct for one in found if one.error_pct is not None]
    return {
        "cases": len(found),
        "predicted": len(errors),
        "coverage": len(errors) / len(found) if found else None,
        **_figures("step", errors),
        "within_10_pct": sum(abs(error) <= GOOD_PCT for error in errors),
        "within_15_pct": sum(abs(error) <= FAIR_PCT for error in errors),
        "within_spread": sum(one.within_spread for one in found),
        **_figures("memory", [one.memory.error_pct for one in found if one.memory]),
        **_figures("energy", [one.energy.error_pct for one in found if one.energy]),
        "words": {word: sum(one.word == word for one in found) for word in WORDS},
        "collectives": dict(Counter(one.collectives.word for one in found if one.collectives)),
        "slowed": statistics.median(slowed) if (slowed := [one.slowed for one in found if one.slowed is not None]) else None,
        "losses": {
            "compared": sum(one.losses != "no other" for one in found), "equal": sum(one.losses == "equal" for one in found),
        },
    }  # fmt: skip


def report_data(found: Sequence[Verdict], machine: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return summary, machine and cases as plain data in SI units, the worst case first."""
    return {"summary": verdict_summary(found), "machine": machine, "cases": [verdict_data(one) for one in found]}


def _figures(what: str, errors: Sequence[float]) -> Summary:
    sizes = [abs(error) for error in errors]
    worst = max(errors, key=abs, default=None)
    return {
        f"{what}_n": len(errors),
        f"{what}_median_abs_error_pct": statistics.median(sizes) if sizes else None,
        f"{what}_mean_abs_error_pct": statistics.fmean(sizes) if sizes else None,
        f"{what}_mean_error_pct": statistics.fmean(errors) if errors else None,
        f"{what}_worst_error_pct": worst,
    }
