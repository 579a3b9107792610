"""What a fit of constants left: errors by source at each stage and the constants, as text, JSON and a picture."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretrain.errors import OutputError
from foretrain.validate.fit_constants import CONSTANTS

Vector = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Stage:
    """Errors, log(predicted / measured), of all cases at one stage of a fit."""

    name: str
    sources: Sequence[str]
    errors: Vector

    def by_source(self) -> dict[str, tuple[int, float, float]]:
        """Return per source the number of cases, mean absolute error and bias in percent."""
        relative = 100.0 * np.expm1(self.errors)
        sound = ~np.isnan(relative)
        names = np.array(self.sources)
        return {
            source: (int(chosen.sum()), float(np.abs(relative[chosen]).mean()), float(relative[chosen].mean()))
            for source in sorted(set(self.sources))
            if (chosen := sound & (names == source)).any()
        }

    def over_sources(self) -> float:
        """Return the mean over sources of the mean absolute error, in percent."""
        return float(np.mean([size for _, size, _ in self.by_source().values()]))


def text(stages: Sequence[Stage], logs: Vector) -> str:
    """Return the errors by source and stage, and the constants."""
    lines = []
    for stage in stages:
        lines.append(f"{stage.name}: mean over sources {stage.over_sources():.1f} %")
        for name, (count, size, bias) in stage.by_source().items():
            lines.append(f"  {name:18s} n {count:4d}  |error| {size:5.1f} %  bias {bias:+6.1f} %")
    lines.append("constants: owner, field, centre -> fitted (width of the prior)")
    for constant, log_factor in zip(CONSTANTS, logs, strict=True):
        centre = "/".join(f"{value:.3g}" for value in constant.centre)
        fitted = "/".join(f"{value:.3g}" for value in constant.value(float(log_factor)))
        lines.append(f"  {constant.owner:46s} {constant.field:17s} {centre:>10s} -> {fitted:>11s}  (±{constant.width:.0%})")
    return "\n".join(lines)


def write_report(stem: Path, stages: Sequence[Stage], logs: Vector) -> None:
    """Write `stem`.md, .json and .png.

    Raises:
        OutputError: where they cannot be written.
    """
    head = (
        "# Constants fitted to published steps\n\n"
        "Written by `python -m foretrain.validate.fit_published`; not edited by hand. Centres are data sheets and microbenchmarks;\n"
        "held-out errors come from fits, from the centres, that never saw the fold.\n"
        f"Python {platform.python_version()}, NumPy {np.__version__}.\n\n"
    )
    data = {
        "stages": {stage.name: {"mean_over_sources_pct": stage.over_sources(), "sources": stage.by_source()} for stage in stages},
        "constants": [
            {"owner": c.owner, "field": c.field, "centre": c.centre, "fitted": c.value(float(log)), "width": c.width}
            for c, log in zip(CONSTANTS, logs, strict=True)
        ],
    }
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".md").write_text(head + "```text\n" + text(stages, logs) + "\n```\n", encoding="utf-8")
        stem.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        _plot(stages, stem.with_suffix(".png"))
    except OSError as error:
        raise OutputError(f"cannot write {stem}.*: {error.strerror or error}; choose another --out") from error


def _plot(stages: Sequence[Stage], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # heavy, and only a report needs it
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    names = list(stages[0].by_source())
    height = 0.8 / len(stages)
    for number, stage in enumerate(stages):
        found = stage.by_source()
        axes.barh(np.arange(len(names)) + number * height, [found[name][1] for name in names], height, label=stage.name)
    axes.set_yticks(np.arange(len(names)) + 0.4 - height / 2, names)
    axes.invert_yaxis()
    axes.set_xlabel("mean absolute error of the step time in %")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
