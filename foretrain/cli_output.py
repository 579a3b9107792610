"""Where the commands write: standard output in the ink it can take, and a folder that is checked before any work is done."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from foretrain.charts.table import PIPE, TERMINAL, Ink
from foretrain.errors import OutputError

LONGEST_SHOWN = 200
"""Characters of a path that a message repeats."""


def ink() -> Ink:
    """Return how standard output shows emphasis: not at all in a pipe, nor where NO_COLOR is set."""
    return TERMINAL if sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR") else PIPE


def say(text: str) -> None:
    """Print a line to standard output; signs that its encoding lacks become question marks."""
    _print(text, sys.stdout)


def warn(text: str) -> None:
    """Print a line to standard error; where that is closed or full, nobody can be told."""
    with contextlib.suppress(OSError):
        _print(text, sys.stderr)


def _print(text: str, stream: TextIO | None) -> None:
    """Print a line; a stream that was closed before the start takes none."""
    if stream is not None:
        encoding = stream.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)


def say_json(data: Any) -> None:
    """Print plain data as JSON."""
    say(dumped(data))


def dumped(data: Any) -> str:
    """Return plain data as indented JSON; not-a-number is a bug, never an answer."""
    return json.dumps(data, indent=2, allow_nan=False)


def progress(done: int, total: int, what: str) -> None:
    """Show how far a long command is, on a terminal only."""
    if sys.stderr is not None and sys.stderr.isatty():
        bar = "█" * (24 * done // total)
        end = "\n" if done == total else ""
        print(f"\r{what} {bar:<24} {done}/{total}", end=end, file=sys.stderr, flush=True)  # noqa: T201


def ready_folder(folder: Path) -> Path:
    """Return `folder`, made where it was missing and tried by writing into it.

    Raises:
        OutputError: where it is a file or cannot be written.
    """
    probe = folder / f".foretrain.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        place, why = str(folder)[:LONGEST_SHOWN], _why(folder, error)
        raise OutputError(f"--out {place} cannot be written: {why}; give a folder that you may write to") from error
    return folder


def _why(folder: Path, error: Exception) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "it is a file" if folder.is_file() else "it is no folder, or runs through something that is none"
    return getattr(error, "strerror", None) or str(error)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole.

    Raises:
        OutputError: where it cannot be written.
    """
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; give a folder that you may write to") from error


def columns(rows: Sequence[Sequence[str]], *, indent: str = "") -> str:
    """Return rows as text with aligned columns, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    right = [all(_numeric(row[i]) for row in rows[1:]) and len(rows) > 1 for i in range(len(widths))]
    cells = [[cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)] for row in rows]
    return "\n".join((indent + "  ".join(row)).rstrip() for row in cells)


def cut(text: str) -> str:
    """Return `text` with its lines cut to the width of the terminal; whole in a pipe."""
    if sys.stdout is None or not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(line if len(line) <= width else line[: width - 1] + "…" for line in text.splitlines())


def _numeric(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit() or cell[:1] in "$+-."
