"""Measurements as lines of JSON: appended one by one, so that what was measured before a fault is kept and a next start resumes.

A file has one `stamp` first (machine, versions, settings as found), then `micro` (a microbenchmark) and `step` (a whole training step)
records. Each record's `key` names what was measured; a second record with a key replaces the first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from foretrain.errors import OutputError, UsageError

KINDS = ("stamp", "micro", "step")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What repeats gave: median and quartiles, in the unit of what was measured."""

    median: float
    q1: float
    q3: float
    repeats: int

    @property
    def relative(self) -> float:
        """Distance of the quartiles over the median."""
        return (self.q3 - self.q1) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measurement. `data` is what its kind says, in SI units."""

    kind: str
    key: str
    data: Mapping[str, Any]

    def spread(self, name: str) -> Spread:
        """Return a spread among the data."""
        return Spread(**self.data[name])


def read_records(path: Path) -> list[Record]:
    """Return the records of a file, the last of each key, in the order of first appearance; a torn last line is left out.

    Raises:
        UsageError: naming the line that is no record.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"measurements {path} cannot be read: {error}; give a file that a calibration wrote") from error
    found: dict[tuple[str, str], Record] = {}
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
            record = Record(kind=data.pop("kind"), key=data.pop("key"), data=data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                break  # written when the disk filled or the process was killed
            raise UsageError(f"{path}, line {number} is no measurement ({error}); take it out or measure again") from error
        if record.kind not in KINDS:
            raise UsageError(f"{path}, line {number}: kind {record.kind!r} is unknown; use one of {', '.join(KINDS)}")
        found[record.kind, record.key] = record
    return list(found.values())


def append_record(path: Path, record: Record) -> None:
    """Append one record, and have it on the disk before returning.

    Raises:
        OutputError: where it cannot be written, as on a full disk; what was written before stays.
    """
    line = json.dumps({"kind": record.kind, "key": record.key, **record.data}, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.truncate(_whole(file))
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; make room or give another place, and start again: it resumes") from error


def _whole(file: IO[bytes]) -> int:
    """Return how many bytes of a file are whole lines: less what an earlier start left torn."""
    file.seek(0)
    return file.read().rfind(b"\n") + 1


def of_kind(records: Sequence[Record], kind: str) -> list[Record]:
    """Return the records of a kind."""
    return [record for record in records if record.kind == kind]
