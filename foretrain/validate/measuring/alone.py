"""The microbenchmarks without the rest of a calibration, from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from foretrain.errors import ForetrainError
from foretrain.units import parse
from foretrain.validate.microbench import DEVICES, measure
from foretrain.validate.records import of_kind


def main() -> None:
    """Measure as the options say; a mistake in them is one line and exit status 2, Ctrl-C is 130."""
    parser = argparse.ArgumentParser(prog="python -m foretrain.validate.microbench", description="Measure this machine, kernel by kernel.")
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--budget", default="60s", help="how long to measure, as 60s or 2min")
    parser.add_argument("--out", type=Path, required=True, help="file of measurements, appended to")
    parser.add_argument("--ranks", type=int, default=None)
    parser.add_argument("--only", default=None, help="kinds of benches, separated by commas")
    options = parser.parse_args()
    only = options.only.split(",") if options.only else None
    try:
        found = measure(options.device, parse(options.budget, "s"), options.out, ranks=options.ranks, progress=_progress, only=only)
    except ForetrainError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        _say(f"stopped; {options.out} keeps what was measured, and the same command goes on")
        sys.exit(130)
    micro = of_kind(found, "micro")
    skipped = [record for record in micro if "skipped" in record.data]
    for record in skipped:
        _say(f"skipped {record.key}: {record.data['skipped']}")
    _say(f"{len(micro) - len(skipped)} measured and {len(skipped)} skipped in {options.out}")


def _progress(done: int, total: int, what: str) -> None:
    if sys.stderr.isatty():
        bar, end = "█" * (24 * done // total), "\n" if done == total else ""
        print(f"\r{what:<12} {bar:<24} {done}/{total} s", end=end, file=sys.stderr, flush=True)  # noqa: T201


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
