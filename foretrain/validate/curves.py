"""Measured curves of collectives against what the simulator says to each point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from foretrain.errors import ForetrainError
from foretrain.units import parse
from foretrain.validate.answers import Progress
from foretrain.validate.cells import Row, text
from foretrain.validate.curve_rows import Curve, curve_of, measured_time_s
from foretrain.validate.runs_file import Line
from foretrain.validate.summary import Outcome

LEAST_BYTES = parse("32 KiB", "B")
"""Smaller messages are all start-up, which differs by a factor of two between like systems: shown apart."""
BANDWIDTH, TIME = "busbw_bytes_per_s", "time_s"


def curve_outcomes(lines: Sequence[Line], *, progress: Progress | None = None) -> list[Outcome]:
    """Return an outcome per line: bus bandwidth where the file gives that, time where it gives single collectives."""
    outcomes = list(_outcomes(lines))
    if progress is not None:
        progress(len(outcomes), len(outcomes))
    return outcomes


def _outcomes(lines: Sequence[Line]) -> Iterator[Outcome]:
    for index, line in enumerate(lines):
        try:
            if line.fault:
                yield _refused(index, line.cells, line.fault)
                continue
            curve = curve_of(line.cells)
            yield _point(index, line.cells, curve, measured_time_s(line.cells, curve))
        except ForetrainError as error:
            yield _refused(index, line.cells, str(error))


def _point(index: int, row: Row, curve: Curve, measured_s: float) -> Outcome:
    predicted_s, single = curve.time_s(), "machine" in row
    return Outcome(
        row=index,
        id=_identity(row),
        quantity=TIME if single else BANDWIDTH,
        measured=measured_s if single else curve.busbw_bytes_per_s(measured_s),
        predicted=predicted_s if single else curve.busbw_bytes_per_s(predicted_s),
        fits=None,
        assumed=curve.assumed,
        reason="",
        source=_system(row),
        accelerator=curve.cluster.accelerator.key.split("-")[0].upper(),
        framework=text(row, "software"),
        layout=f"{curve.kind} on {curve.hosts} host{'s' * (curve.hosts > 1)}",
        subset="core" if curve.size_bytes >= LEAST_BYTES else "small",
        complete=True,
        config_key=f"{_system(row)}|{curve.kind}|{curve.ranks}|{curve.hosts}|{curve.size_bytes:.0f}|{text(row, 'software')}",
    )


def _refused(index: int, row: Row, reason: str) -> Outcome:
    return Outcome(
        row=index, id=_identity(row), quantity=TIME if "machine" in row else BANDWIDTH, measured=None, predicted=None, fits=None,
        assumed=(), reason=reason, source=_system(row), accelerator="", framework=text(row, "software"),
        layout=text(row, "collective"), subset="", complete=False, config_key="",
    )  # fmt: skip


def _system(row: Row) -> str:
    return text(row, "system") or text(row, "machine")


def _identity(row: Row) -> str:
    return text(row, "id") or "|".join(text(row, name) for name in ("machine", "collective", "gpus", "nodes", "bytes"))
