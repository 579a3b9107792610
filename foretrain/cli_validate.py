"""`foretrain validate published`: how far predictions are from published runs."""

from __future__ import annotations

import json
from pathlib import Path

from foretrain.cli_output import progress, ready_folder, say
from foretrain.validate.published import format_summary, validate_published


def run_published(runs: Path | None, out: Path, *, as_json: bool) -> int:
    """Predict every run of the file, or of those that come with foretrain, print the summary, and return the exit status."""
    folder = ready_folder(out)
    summary = validate_published(runs, folder, progress=lambda done, total: progress(done, total, "runs"))
    if as_json:
        say(json.dumps(summary, indent=2))
    else:
        say(format_summary(summary))
        say(f"\nwritten to {folder}/")
    return 0
