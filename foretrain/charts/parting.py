"""Where a prediction and a recorded step part, as a table of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from foretrain.charts.words import label
from foretrain.units import show

Data = dict[str, Any]
NAME = 46
"""Letters of a kernel's name that are shown."""
NEGLIGIBLE = 5e-4
"""Share of the step below which neither side is worth a line."""

_BOUND = {(True, True): "both", (True, False): "predicted", (False, True): "measured", (False, False): "neither"}


def format_parting(data: Data) -> str:
    """Return the comparison for people; every difference is predicted less measured."""
    parts = (_step, _classes, _groups, _phases, _host, _longest)
    return "\n\n".join(text for part in parts if (text := "\n".join(part(data))))


def _step(data: Data) -> Iterator[str]:
    yield from data.get("heading", ())
    step = data["step_s"]
    error = "" if step["error_pct"] is None else f", error {step['error_pct']:+.1f} %"
    yield f"step time: predicted {show(step['predicted'], 's')}, measured {show(step['measured'], 's')}{error}"
    yield from (f"note: {note}" for note in data.get("notes", ()))


def _classes(data: Data) -> Iterator[str]:
    measured_s = data["step_s"]["measured"]
    yield f"{'class, every instant once':<30}{'predicted':>12}{'measured':>12}{'difference':>13}{'of the step':>12}"
    for row in _worth(data["classes"], data):
        share = row["difference_s"] / measured_s if measured_s else 0.0
        yield _row(label(row["name"]), row) + f"{100 * share:>+10.1f} %"
    hidden = _worth(data["hidden"], data)
    if hidden:
        yield "hidden behind compute"
        yield from (_row(f"  {label(row['name'])}", row) for row in hidden)


def _groups(data: Data) -> Iterator[str]:
    launches = data["launches"]
    yield f"{'ops by group':<18}{'predicted':>12}{'launches':>10}{'measured':>12}{'launches':>10}{'difference':>13}"
    for row in _worth(data["groups"], data):
        yield (
            f"{row['name']:<18}{show(row['predicted_s'], 's'):>12}{row['predicted_launches']:>10,}{show(row['measured_s'], 's'):>12}"
            f"{row['measured_launches']:>10,}{_signed(row['difference_s']):>13}"
        )
    yield f"{'all launches':<18}{'':>12}{launches['predicted']:>10,}{'':>12}{launches['measured']:>10,}"


def _phases(data: Data) -> Iterator[str]:
    yield f"{'kernels by phase':<30}{'predicted':>12}{'measured':>12}{'difference':>13}"
    yield from (_row(row["name"], row) for row in _worth(data["phases"], data))


def _host(data: Data) -> Iterator[str]:
    predicted, measured = data["host"]["predicted"], data["host"]["measured"]
    bound = _BOUND[predicted["bound"], measured["bound"]]
    yield f"{'waiting for the host':<30}{_percent(predicted['share']):>12}{_percent(measured['share']):>12}  host-bound: {bound}"


def _longest(data: Data) -> Iterator[str]:
    for side, rows in data["longest"].items():
        if rows:
            yield f"{f'longest {side}':<{NAME + 2}}{'time':>12}{'launches':>10}"
        for row in rows:
            name = row["name"] if len(row["name"]) <= NAME else row["name"][: NAME - 1] + "…"
            yield f"{name:<{NAME + 2}}{show(row['seconds'], 's'):>12}{row['launches']:>10,}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _worth(rows: Sequence[Data], data: Data) -> list[Data]:
    least_s = NEGLIGIBLE * max(data["step_s"]["predicted"], data["step_s"]["measured"])
    return [row for row in rows if max(row["predicted_s"], row["measured_s"]) > least_s]


def _row(name: str, row: Data) -> str:
    return f"{name:<30}{show(row['predicted_s'], 's'):>12}{show(row['measured_s'], 's'):>12}{_signed(row['difference_s']):>13}"


def _signed(seconds: float) -> str:
    return f"{'-' if seconds < 0 else '+'}{show(abs(seconds), 's')}"
