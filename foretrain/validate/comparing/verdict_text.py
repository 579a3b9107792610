"""Verdicts as a table for a terminal, and as a report in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foretrain.units import show
from foretrain.validate.comparing.verdict import FAIR_PCT, GOOD_PCT, Pair, Verdict
from foretrain.validate.comparing.verdict_summary import verdict_summary

_HEADS = ("case", "ranks", "measured", "predicted", "error", "memory", "energy", "collectives", "losses", "verdict")
_RIGHT = range(1, 7)
HEAD, TAIL = 8, 34
"""Letters of a long case's name that the table shows: its network, and how it is laid out."""


def format_verdicts(found: Sequence[Verdict]) -> str:
    """Return the summary, the cases that were predicted, the worst first, and the others with their reasons."""
    told = [(_short(one.name), *_cells(one)) for one in found if one.error_pct is not None]
    parts = [summary_lines(found), _aligned([_HEADS, *told]) if told else [], _others(found)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def format_report(found: Sequence[Verdict], machine: Mapping[str, Any] | None, picture: str) -> str:
    """Return the report in Markdown; `picture` is the name of the file that it shows."""
    told = [(one.name.replace("|", "/"), *_cells(one)) for one in found if one.error_pct is not None]
    others = _others(found)
    parts = [
        ["# Predicted and measured steps"],
        [f"- {key}: {value}" for key, value in (machine or {}).items() if isinstance(value, str | int | float)],
        [f"{line}  " for line in summary_lines(found)],
        [f"![predicted against measured]({picture})"] if told else [],
        [_row(_HEADS), _row("---:" if at in _RIGHT else "---" for at in range(len(_HEADS))), *map(_row, told)] if told else [],
        ["## Not predicted, or not measured", *(f"- {line.strip()}" for line in others[1:])] if others else [],
        [
            "Errors are (predicted − measured) / measured, of the median step; behind the measured time is half the distance of its "
            f"quartiles. Good is within ±{GOOD_PCT:.0f} %, fair within ±{FAIR_PCT:.0f} %. A dash: not measured."
        ],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def summary_lines(found: Sequence[Verdict]) -> list[str]:
    """Return the summary in a few lines."""
    figures = verdict_summary(found)
    words = ", ".join(f"{count} {word}" for word, count in figures["words"].items() if count)
    lines = [f"{figures['predicted']} of {figures['cases']} measured steps predicted: {words}" if found else "no step was measured"]
    for what, name in (("step", "step time"), ("memory", "peak memory"), ("energy", "energy")):
        lines += [_figures(name, what, figures)] if figures[f"{what}_n"] else []
    if figures["collectives"]:
        lines.append("collectives: " + ", ".join(f"{count} {word}" for word, count in figures["collectives"].items()))
    if figures["losses"]["compared"]:
        lines.append(f"losses: {figures['losses']['equal']} of {figures['losses']['compared']} equal to those on the fewest ranks")
    if figures["slowed"] is not None:
        slower = max(0.0, figures["slowed"] - 1.0)
        lines.append(f"measured times are those of the undisturbed processor, which others made {slower:.0%} slower in the middle")
    return lines


def _figures(name: str, what: str, figures: Mapping[str, Any]) -> str:
    median, mean = figures[f"{what}_median_abs_error_pct"], figures[f"{what}_mean_abs_error_pct"]
    bias, worst = figures[f"{what}_mean_error_pct"], figures[f"{what}_worst_error_pct"]
    return f"{name}: median error {median:.1f} %, mean {mean:.1f} %, bias {bias:+.1f} %, worst {worst:+.1f} %, of {figures[f'{what}_n']}"


def _cells(one: Verdict) -> tuple[str, ...]:
    spread = one.measured
    half = (spread.q3 - spread.q1) / 2 if spread else 0.0
    return (
        str(one.world_size),
        f"{show(spread.median, 's')} ± {100 * half / spread.median:.0f} %" if spread else "-",
        "-" if one.predicted_s is None else show(one.predicted_s, "s"),
        "-" if one.error_pct is None else f"{one.error_pct:+.1f} %",
        _error(one.memory), _error(one.energy),
        "-" if one.collectives is None else one.collectives.word,
        "-" if one.losses == "no other" else one.losses,
        one.word,
    )  # fmt: skip


def _error(pair: Pair | None) -> str:
    return "-" if pair is None else f"{pair.error_pct:+.1f} %"


def _others(found: Sequence[Verdict]) -> list[str]:
    rest = [one for one in found if one.error_pct is None]
    return ["without a comparison", *(f"  {one.name}: {one.word}: {one.reason}" for one in rest)] if rest else []


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADS))]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for at, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if at in _RIGHT else cell.ljust(width)


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _short(name: str) -> str:
    return name if len(name) <= HEAD + TAIL else f"{name[:HEAD]}…{name[-TAIL:]}"
