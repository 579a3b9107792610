"""How far predictions are from measurements: one figure per configuration, grouped, never over raw rows."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ROBUSTNESS_ONLY = frozenset({"bigscience-v100"})
"""Sources whose own repeats differ by up to 1.8: shown, never in a headline."""

WORST = 10
WITHIN_PCT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One quantity of one row: measured and predicted in SI units, None where there is none."""

    row: int
    id: str
    quantity: str
    measured: float | None
    predicted: float | None
    fits: bool | None
    """Whether the prediction fits the accelerators' memory."""
    assumed: tuple[str, ...]
    reason: str
    source: str
    accelerator: str
    framework: str
    layout: str
    subset: str
    complete: bool
    config_key: str

    @property
    def error_pct(self) -> float | None:
        """Signed error, in per cent of the measurement."""
        return error_pct(self.predicted, self.measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All repeats of one configuration: medians of what was measured and predicted."""

    id: str
    measured: float | None
    predicted: float | None
    first: Outcome

    @property
    def error_pct(self) -> float | None:
        """Signed error, in per cent of the measurement."""
        return error_pct(self.predicted, self.measured)


Summary = dict[str, Any]
"""What summary.json holds."""


def error_pct(predicted: float | None, measured: float | None) -> float | None:
    """Return the signed error in per cent of the measurement, or None where either is missing."""
    if predicted is None or measured is None:
        return None
    return 100.0 * (predicted - measured) / measured


def configurations(outcomes: Iterable[Outcome]) -> list[Configuration]:
    """Return one configuration per key (a row without a key is its own), in order of appearance."""
    repeats: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        repeats[outcome.config_key or f"row {outcome.row}"].append(outcome)
    return [_configuration(group) for group in repeats.values()]


def _configuration(group: list[Outcome]) -> Configuration:
    measured = [outcome.measured for outcome in group if outcome.measured is not None]
    predicted = [outcome.predicted for outcome in group if outcome.predicted is not None]
    return Configuration(
        id=group[0].id,
        measured=statistics.median(measured) if measured else None,
        predicted=statistics.median(predicted) if predicted else None,
        first=group[0],
    )


def statistics_of(found: list[Configuration]) -> Summary:
    """Return n, coverage, absolute and signed errors, share within 10 % and the worst ten of some configurations.

    `configurations` counts all of them, `n` those with both a prediction and a measurement.
    """
    scored = [(config, config.error_pct) for config in found]
    errors = [error for _, error in scored if error is not None]
    sizes = [abs(error) for error in errors]
    predicted = sum(config.predicted is not None for config in found)
    return {
        "configurations": len(found),
        "n": len(errors),
        "coverage": predicted / len(found) if found else None,
        "mean_abs_error_pct": statistics.fmean(sizes) if sizes else None,
        "median_abs_error_pct": statistics.median(sizes) if sizes else None,
        "mean_error_pct": statistics.fmean(errors) if errors else None,
        "within_10_pct": sum(size <= WITHIN_PCT for size in sizes) / len(sizes) if sizes else None,
        "worst": _worst(found),
    }


def _worst(found: list[Configuration]) -> list[Summary]:
    scored = sorted(((abs(c.error_pct), c) for c in found if c.error_pct is not None), key=lambda pair: -pair[0])
    return [
        {"id": c.id, "source": c.first.source, "measured": c.measured, "predicted": c.predicted, "error_pct": c.error_pct}
        for _, c in scored[:WORST]
    ]


def mean_over_sources(found: list[Configuration]) -> Summary:
    """Return the mean of each source's own figures, so that no source outweighs another."""
    per_source = [statistics_of(group) for group in _grouped(found, lambda outcome: outcome.source).values()]
    names = ("coverage", "mean_abs_error_pct", "median_abs_error_pct", "mean_error_pct", "within_10_pct")
    return {"sources": len(per_source)} | {name: _mean(source[name] for source in per_source) for name in names}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def summarise(outcomes: Iterable[Outcome], *, file: str, kind: str) -> Summary:
    """Return what summary.json holds: per quantity the headline, the groups and what is quoted apart from it."""
    by_quantity: dict[str, list[Outcome]] = defaultdict(list)
    rows: dict[int, Outcome] = {}
    for outcome in outcomes:
        by_quantity[outcome.quantity].append(outcome)
        rows[outcome.row] = outcome
    return {
        "file": file,
        "kind": kind,
        "rows": len(rows),
        "rows_simulated": sum(not outcome.reason for outcome in rows.values()),
        "rows_predicted_not_to_fit": sum(outcome.fits is False for outcome in rows.values()),
        "reasons": _reasons(outcome.reason for outcome in rows.values()),
        "quantities": {quantity: _quantity(found) for quantity, found in by_quantity.items()},
    }


def _reasons(reasons: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for reason in reasons:
        if reason:
            counts[reason] += 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _quantity(outcomes: list[Outcome]) -> Summary:
    core = configurations(o for o in outcomes if o.complete and o.subset == "core")
    headline = [config for config in core if config.first.source not in ROBUSTNESS_ONLY]
    a100_h100 = [config for config in headline if config.first.accelerator.startswith(("A100", "H100"))]
    return {
        "headline": _figures(headline),
        "headline_a100_h100": _figures(a100_h100),
        "bulk_grid": statistics_of(configurations(o for o in outcomes if o.complete and o.subset == "bulk_grid")),
        "other_subsets": statistics_of(configurations(o for o in outcomes if o.complete and o.subset not in ("core", "bulk_grid"))),
        "incomplete": statistics_of(configurations(o for o in outcomes if not o.complete)),
        "by_source": _groups(core, lambda outcome: outcome.source),
        "by_accelerator": _groups(core, lambda outcome: outcome.accelerator),
        "by_framework": _groups(core, lambda outcome: outcome.framework),
        "by_layout": _groups(core, lambda outcome: outcome.layout),
    }


def _figures(found: list[Configuration]) -> Summary:
    return statistics_of(found) | {"mean_over_sources": mean_over_sources(found)}


def _groups(found: list[Configuration], key: Callable[[Outcome], str]) -> Mapping[str, Summary]:
    return {name: statistics_of(group) for name, group in sorted(_grouped(found, key).items())}


def _grouped(found: list[Configuration], key: Callable[[Outcome], str]) -> dict[str, list[Configuration]]:
    groups: dict[str, list[Configuration]] = defaultdict(list)
    for config in found:
        groups[key(config.first)].append(config)
    return dict(groups)
