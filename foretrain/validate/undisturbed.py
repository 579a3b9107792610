"""Times as an undisturbed processor takes them, from measurements beside which a piece of reference work was timed.

    t = t_measured · r_best / r,    r seconds of the reference work beside the measurement, r_best those of it on an undisturbed processor

of the slowest rank, for each repeat of a step and each microbenchmark by itself. What was measured on a GPU has no reference and is left
as it is, as are files without one. Steps are taken from their repeats, which stay as they were: doing it again changes nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from foretrain.validate.measuring.timer import spread_of
from foretrain.validate.records import Record

BEST = 0.05
"""Share of the references that are quicker than the one of an undisturbed processor: clocks have moments."""
FEWEST = 20
"""References from which the best of them is that of an undisturbed processor."""
SPREADS = ("seconds", "cpu_s")


def undisturbed(records: Sequence[Record]) -> list[Record]:
    """Return the records with the times of an undisturbed processor; steps then say under `slowed` by what factor it was slower."""
    every = sorted(value for record in records for value in _references(record.data))
    if len(every) < FEWEST:
        return list(records)
    best_s = every[int(BEST * len(every))]
    return [replace(record, data=_paced(record.data, best_s)) for record in records]


def _references(data: Mapping[str, Any]) -> list[float]:
    """Return the references of a record: one of a microbenchmark, of a step one for each repeat; none where they are not as written."""
    own, samples = data.get("reference_s"), data.get("samples")
    if isinstance(own, float) and own > 0.0:
        return [own]
    if not isinstance(samples, Mapping):
        return []
    seconds, references = samples.get("step_s"), samples.get("reference_s")
    if not isinstance(seconds, list) or not isinstance(references, list) or len(seconds) != len(references):
        return []
    return references if all(isinstance(one, float) and one > 0.0 for one in (*seconds, *references)) else []


def _paced(data: Mapping[str, Any], best_s: float) -> dict[str, Any]:
    references = _references(data)
    if not references:
        return dict(data)
    if "reference_s" in data:
        factor = best_s / references[0]
        return {**data, **{name: _scaled(data[name], factor) for name in SPREADS if name in data}}
    samples = data["samples"]
    steps = [seconds * best_s / reference for seconds, reference in zip(samples["step_s"], references, strict=True)]
    return {**data, "step_s": asdict(spread_of(steps)), "slowed": statistics.median(references) / best_s}


def _scaled(spread: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: value if name == "repeats" else value * factor for name, value in spread.items()}
