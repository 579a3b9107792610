"""The kinds of file whose rows are training steps: how a row becomes a job, what it measured, what it is grouped by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from foretrain.validate import classic_rows, image_rows, llm_labels, llm_rows
from foretrain.validate.cells import Row
from foretrain.validate.labels import Labels
from foretrain.validate.llm_rows import Job, Library, Measured, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class StepKind:
    """How the rows of one kind of file are read."""

    job: Callable[[Row, Library], Job | Refusal]
    key: Callable[[Row], object]
    """What two rows share that ask the same of the simulator."""
    measured: Callable[[Row], Measured]
    labels: Callable[[Row], Labels]


STEP_KINDS: Mapping[str, StepKind] = MappingProxyType({
    "llm_runs": StepKind(job=llm_rows.job_of, key=llm_rows.job_key, measured=llm_rows.measured, labels=llm_labels.labels_of),
    "classic_runs": StepKind(
        job=classic_rows.job_of, key=classic_rows.job_key, measured=classic_rows.measured, labels=classic_rows.labels_of
    ),
    "image_model_runs": StepKind(job=image_rows.job_of, key=image_rows.job_key, measured=image_rows.measured, labels=image_rows.labels_of),
})  # fmt: skip
