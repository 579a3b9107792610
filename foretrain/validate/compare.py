"""Hold predictions against measured steps: verdicts on many, and where the prediction of one parts from its recorded trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretrain.errors import UsageError, nearest
from foretrain.sim.prediction import Prediction
from foretrain.sim.timeline import Timeline
from foretrain.units import show
from foretrain.validate.case import Case, case_of
from foretrain.validate.comparing.parting import parting
from foretrain.validate.comparing.profile import StepProfile, measured_profile, predicted_profile, rank_of
from foretrain.validate.comparing.steps import Chosen, choose
from foretrain.validate.comparing.trace_file import Trace
from foretrain.validate.comparing.verdict import Predict, Verdict, verdicts
from foretrain.validate.records import Record, of_kind, read_records

__all__ = ["RECORDS", "Comparison", "Predict", "Verdict", "case_named", "compare_records", "compare_trace", "machine_of"]

RECORDS = ".jsonl"
"""How files of measurements end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One measured step beside its prediction: both profiles, and what they were made of."""

    prediction: Prediction
    timeline: Timeline
    trace: Trace
    chosen: Chosen
    predicted: StepProfile
    measured: StepProfile

    def to_dict(self) -> dict[str, Any]:
        """Return where they part as plain data in SI units, predicted less measured, the largest differences first."""
        step = self.chosen.step
        return {
            "trace": str(self.trace.path), "device": self.trace.device_name or None, "rank": self.trace.rank,
            "step": step.number, "steps": self.chosen.steps, "least_s": self.chosen.least_s, "most_s": self.chosen.most_s,
            "model": self.prediction.model, "cluster": self.prediction.cluster, "software": self.prediction.software,
            **parting(self.predicted, self.measured), "heading": list(_heading(self)), "notes": list(_notes(self)),
        }  # fmt: skip


def compare_trace(trace: Trace, prediction: Prediction, *, step: int | None = None) -> Comparison:
    """Return a step of a recorded trace beside the prediction of its job: that of this number, without one that of median length.

    Raises:
        UsageError: where the trace has no such step, or several without marks between them.
    """
    chosen = choose(trace, step)
    timeline = prediction.timeline("op")
    return Comparison(
        prediction=prediction, timeline=timeline, trace=trace, chosen=chosen,
        predicted=predicted_profile(timeline, rank_of(timeline, prediction, trace.rank or 0)),
        measured=measured_profile(trace, chosen.step, prediction),
    )  # fmt: skip


def compare_records(records: Sequence[Record], predict: Predict) -> list[Verdict]:
    """Return a verdict on every measured step of the records, the worst first.

    Raises:
        UsageError: where no step was measured.
    """
    if not of_kind(records, "step"):
        raise UsageError("the measurements hold no training step; measure some, then compare")
    return verdicts(records, predict)


def case_named(text: str) -> Case:
    """Return the case that `RECORDS.jsonl:NAME` names.

    Raises:
        UsageError: where there is no such file, or no such case in it.
    """
    # Names of cases have colons too.
    before, colon, name = text.partition(f"{RECORDS}:")
    path = f"{before}{RECORDS}"
    if not colon or not before or not name:
        raise UsageError(f"--case {text!r} names no case; write RECORDS.jsonl:NAME")
    cases = [record.data["case"] for record in of_kind(read_records(Path(path)), "step") if isinstance(record.data.get("case"), Mapping)]
    found = next((case for case in cases if case.get("name") == name), None)
    if found is None:
        names = [str(case.get("name")) for case in cases]
        few = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        raise UsageError(f"{path} has no case {name!r}; it has {few or 'none'}{nearest(name, names)}")
    return case_of(found)


def machine_of(records: Sequence[Record]) -> Mapping[str, Any] | None:
    """Return what the stamp of the measurements says of the machine, where they have one."""
    stamp = next(iter(of_kind(records, "stamp")), None)
    return None if stamp is None else stamp.data


def _heading(one: Comparison) -> list[str]:
    trace, chosen = one.trace, one.chosen
    which = "the whole trace" if chosen.step.number is None else f"step {chosen.step.number}"
    spread = f"{show(chosen.least_s, 's')} to {show(chosen.most_s, 's')}"
    among = "" if chosen.steps == 1 else f" ({chosen.steps} steps were marked, {spread})"
    rank = "" if trace.rank is None else f", rank {trace.rank} of {trace.world_size}"
    device = f", {trace.device_name}" if trace.device_name else ""
    prediction = one.prediction
    return [
        f"measured: {trace.path.name}, {which}{among}{rank}{device}",
        f"predicted: {prediction.model} on {prediction.cluster} ({prediction.accelerators:,} accelerators), {prediction.software}",
    ]


def _notes(one: Comparison) -> list[str]:
    notes = []
    ranks = one.trace.world_size
    if ranks is not None and ranks != one.prediction.accelerators:
        notes.append(f"the trace is of {ranks} ranks, the prediction of {one.prediction.accelerators:,}")
    if not one.trace.device:
        notes.append("the trace has no device; the ops of the host are held against the predicted kernels")
    return notes

