"""The summary as a table for a terminal of 80 columns."""

from __future__ import annotations

from foretrain.validate.summary import Summary

_HEAD = f"{'':<34}{'n':>5}{'covered':>9}{'mean':>8}{'median':>8}{'bias':>8}{'<=10 %':>8}"
_UNITS = {
    "step_time_s": ("s", 1.0),
    "memory_bytes": ("GB", 1e9),
    "busbw_bytes_per_s": ("GB/s", 1e9),
    "time_s": ("s", 1.0),
    "energy_j": ("J", 1.0),
    "mean_power_w": ("W", 1.0),
    "power_rise_w": ("W", 1.0),
    "power_rise_over_least_idle_w": ("W", 1.0),
}


def format_summary(summary: Summary) -> str:
    """Return the headline, the figures per source and the worst ten of every quantity, at most 80 columns wide."""
    lines = [f"{summary['file']}: {summary['rows_simulated']} of {summary['rows']} rows simulated"]
    for quantity, figures in summary["quantities"].items():
        lines += ["", *_quantity(quantity, figures)]
    lines += _reasons(summary["reasons"])
    return "\n".join(lines)


def _quantity(quantity: str, figures: Summary) -> list[str]:
    lines = [f"{quantity}: error of the prediction in % of the measurement", _HEAD]
    lines += _headline("complete core", figures["headline"]) + _headline("A100 and H100", figures["headline_a100_h100"])
    lines += [_line(label, figures[key]) for label, key in _APART if figures[key]["configurations"]]
    lines += ["per source", *(_line("  " + name, group) for name, group in figures["by_source"].items())]
    return lines + _worst(quantity, figures["headline"]["worst"])


_APART = (("bulk grid", "bulk_grid"), ("other subsets", "other_subsets"), ("incomplete rows", "incomplete"))


def _headline(label: str, figures: Summary) -> list[str]:
    over = figures["mean_over_sources"]
    return [_line(label, figures), _line("  mean over sources", over | {"n": over["sources"]})]


def _line(label: str, figures: Summary) -> str:
    share, within = figures["coverage"], figures["within_10_pct"]
    return (
        f"{_short(label, 34):<34}{figures['n']:>5}{_percent(share):>9}{_figure(figures['mean_abs_error_pct']):>8}"
        f"{_figure(figures['median_abs_error_pct']):>8}{_figure(figures['mean_error_pct'], '+'):>8}{_percent(within):>8}"
    )


def _worst(quantity: str, worst: list[Summary]) -> list[str]:
    if not worst:
        return []
    unit, scale = _UNITS.get(quantity, ("", 1.0))
    lines = [f"worst {len(worst)} of the headline", f"  {'id':<38}{'measured ' + unit:>14}{'predicted ' + unit:>14}{'error %':>10}"]
    return lines + [
        f"  {_short(case['id'], 38):<38}{case['measured'] / scale:>14.4g}{case['predicted'] / scale:>14.4g}{case['error_pct']:>+10.1f}"
        for case in worst
    ]


def _reasons(reasons: dict[str, int]) -> list[str]:
    if not reasons:
        return []
    shown = list(reasons.items())[:8]
    lines = ["", "not simulated (rows: reason)", *(f"{count:>6}  {_short(reason, 72)}" for reason, count in shown)]
    rest = sum(reasons.values()) - sum(count for _, count in shown)
    return [*lines, f"{rest:>6}  for other reasons, in predictions.csv"] if rest else lines


def _figure(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _short(words: str, width: int) -> str:
    return words if len(words) <= width else words[: width - 3] + "..."
