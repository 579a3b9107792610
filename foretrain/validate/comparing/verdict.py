"""One case, predicted and measured: a verdict on its step time, and beside it memory, energy, collectives and losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foretrain.errors import ForetrainError
from foretrain.sim.prediction import Prediction
from foretrain.validate.case import Case, case_of
from foretrain.validate.comparing.collectives import Agreement, agreement
from foretrain.validate.comparing.step_fields import fault_of
from foretrain.validate.records import Record, Spread, of_kind
from foretrain.validate.summary import error_pct
from foretrain.validate.undisturbed import undisturbed

Predict = Callable[[Case], Prediction]
GOOD_PCT, FAIR_PCT = 10.0, 15.0
"""Errors of a step time up to which a prediction is called good, and fair."""
GOOD, FAIR, POOR, UNPREDICTED, UNMEASURED = "good", "fair", "poor", "not predicted", "not measured"
WORDS = (GOOD, FAIR, POOR, UNPREDICTED, UNMEASURED)
LOSS_TOLERANCE = {"fp32": 1e-3}
"""Relative difference of losses between layouts that the order of sums explains, by precision."""
ROUNDED_LOSS_TOLERANCE = 2e-2
"""The same where products are rounded to tf32, 16 bits or fewer."""
UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A quantity as it was predicted and measured, in SI units."""

    predicted: float
    measured: float

    @property
    def error_pct(self) -> float:
        """The signed error in per cent of the measurement."""
        return 100.0 * (self.predicted - self.measured) / self.measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known of one case. Times in seconds; quantities that were not measured, or not predicted, are None."""

    name: str
    layout: str
    kind: str
    device: str
    world_size: int
    word: str
    measured: Spread | None = None
    predicted_s: float | None = None
    memory: Pair | None = None
    energy: Pair | None = None
    collectives: Agreement | None = None
    losses: str = "no other"
    slowed: float | None = None
    """How many times as long as `measured` steps took while others used the processor, in the middle; None where that is not known."""
    reason: str = ""

    @property
    def error_pct(self) -> float | None:
        """The signed error of the step time in per cent of the median measured."""
        return error_pct(self.predicted_s, self.measured.median if self.measured else None)

    @property
    def within_spread(self) -> bool:
        """Whether the prediction lies between the quartiles of what was measured."""
        spread, predicted = self.measured, self.predicted_s
        return spread is not None and predicted is not None and spread.q1 <= predicted <= spread.q3


def verdicts(records: Sequence[Record], predict: Predict) -> list[Verdict]:
    """Return a verdict on every measured step, the worst first, and last those that were not predicted or not measured."""
    steps = of_kind(undisturbed(records), "step")
    losses = _losses([record for record in steps if not fault_of(record.data)])
    found = [_verdict(record, predict, losses.get(record.key, "no other")) for record in steps]
    return sorted(found, key=lambda one: (one.error_pct is None, -abs(one.error_pct or 0.0)))


def _verdict(record: Record, predict: Predict, losses: str) -> Verdict:
    data, fault = record.data, fault_of(record.data)
    head = _head(record)
    if fault:
        return Verdict(**head, word=UNMEASURED, reason=fault)
    try:
        case = case_of(data["case"]) if "case" in data else None
    except ForetrainError as error:
        return Verdict(**head, word=UNPREDICTED, reason=_first_line(error))
    measured = _spread(data.get("step_s"))
    if case is None or measured is None:
        return Verdict(**head, word=UNMEASURED, reason=_failure(data))
    try:
        prediction = predict(case)
    except (ForetrainError, ImportError) as error:
        return Verdict(**head, word=UNPREDICTED, measured=measured, losses=losses, reason=_first_line(error))
    step_error = abs(100.0 * (prediction.step_s - measured.median) / measured.median)
    seen = data.get("collectives")
    return Verdict(
        **head, word=GOOD if step_error <= GOOD_PCT else FAIR if step_error <= FAIR_PCT else POOR,
        measured=measured, predicted_s=prediction.step_s, losses=losses, memory=_memory(prediction, data), energy=_energy(prediction, data),
        collectives=None if seen is None else agreement(prediction, seen), slowed=data.get("slowed"),
    )  # fmt: skip


def _head(record: Record) -> dict[str, Any]:
    """Return what a table says of a case, whether or not it can be read."""
    case, ranks = _mapping(record.data.get("case")), record.data.get("world_size")
    plan, net = _mapping(case.get("plan")), _mapping(case.get("net"))
    layout = ", ".join(f"{name} {value}" for name, value in plan.items()) or "one rank"
    return {
        "name": str(case.get("name", record.key)), "layout": layout, "kind": str(net.get("kind", "")),
        "device": str(record.data.get("device", "")), "world_size": ranks if isinstance(ranks, int) else 1,
    }  # fmt: skip


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _spread(data: Mapping[str, Any] | None) -> Spread | None:
    """Return a spread; None where nothing was measured."""
    if data is None:
        return None
    found = Spread(**data)
    return found if math.isfinite(found.median) and found.median > 0.0 else None


def _failure(data: Mapping[str, Any]) -> str:
    """Return why a case was not measured, as its record says it."""
    said = next((str(data[key]) for key in ("skipped", "error", "reason") if data.get(key)), "the record has no case and step time")
    return said.strip().splitlines()[-1]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _memory(prediction: Prediction, data: Mapping[str, Any]) -> Pair | None:
    """Return the peak memory of a rank.

    What a device's allocator counts is held against all that is predicted but what the framework keeps outside of it; what the
    operating system counts of a process, against all.
    """
    memory = data.get("memory") or {}
    heaviest = max(prediction.memory, key=lambda stage: stage.peak_bytes)
    allocated, resident = memory.get("allocated_bytes"), memory.get("rss_bytes")
    if data.get("device") == "cuda" and allocated:
        return Pair(predicted=heaviest.peak_bytes - heaviest.components.get("framework", 0.0), measured=float(allocated))
    if data.get("device") == "cpu" and resident:
        return Pair(predicted=heaviest.peak_bytes, measured=float(resident))
    return None


def _energy(prediction: Prediction, data: Mapping[str, Any]) -> Pair | None:
    """Return the energy of a step at the accelerators' own meters; None where none was read."""
    energy = data.get("energy") or {}
    joules, watts = energy.get("joules_per_step"), prediction.power.get("accelerator_mean_w")
    if energy.get("source", UNAVAILABLE) == UNAVAILABLE or not joules or watts is None:
        return None
    return Pair(predicted=watts * prediction.accelerators * prediction.step_s, measured=float(joules))


def _losses(steps: Sequence[Record]) -> dict[str, str]:
    """Return, by key, whether the first losses are those of the same training on the fewest ranks."""
    alike: dict[str, list[Record]] = {}
    for record in steps:
        if record.data.get("losses") and record.data.get("case"):
            case = record.data["case"]
            alike.setdefault(repr((case.get("net"), case.get("recipe"))), []).append(record)
    words: dict[str, str] = {}
    for found in alike.values():
        first = min(found, key=lambda record: int(record.data.get("world_size") or 1))
        words.update({record.key: _same(first, record) for record in found} if len(found) > 1 else {})
    return words


def _same(first: Record, record: Record) -> str:
    ours, theirs = first.data["losses"], record.data["losses"]
    if not all(map(math.isfinite, (*ours, *theirs))):
        return "not finite"
    worst = max((abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in zip(ours, theirs, strict=False)), default=0.0)
    precision = str((record.data["case"].get("recipe") or {}).get("precision", ""))
    same = worst <= LOSS_TOLERANCE.get(precision, ROUNDED_LOSS_TOLERANCE)
    return "equal" if same else f"differ by {100 * worst:.2g} %"


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as plain data, in SI units."""
    spread = verdict.measured
    return {
        **{key: getattr(verdict, key) for key in ("name", "layout", "kind", "device", "world_size", "word")},
        "measured_s": None if spread is None else asdict(spread), "predicted_s": verdict.predicted_s, "error_pct": verdict.error_pct,
        "within_spread": verdict.within_spread, "memory_bytes": _pair_data(verdict.memory), "energy_j": _pair_data(verdict.energy),
        "collectives": None if verdict.collectives is None else _agreement_data(verdict.collectives),
        "losses": verdict.losses, "slowed": verdict.slowed, "reason": verdict.reason,
    }  # fmt: skip


def _pair_data(pair: Pair | None) -> dict[str, float] | None:
    return None if pair is None else {**asdict(pair), "error_pct": pair.error_pct}


def _agreement_data(found: Agreement) -> dict[str, Any]:
    sides = {"predicted": found.predicted, "measured": found.measured}
    return {"word": found.word, **{side: {op: list(total) for op, total in totals.items()} for side, totals in sides.items()}}

