"""Processes that run benches together, one per rank: started when first needed, and always reaped."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from foretrain.validate.measuring.bench import Bench, Machine
from foretrain.validate.measuring.counters import UnavailableError

START_S = 60.0
ANSWER_S = 30.0
POLL_S = 0.1


class Team:
    """Ranks as processes. A team that stops answering is ended, and says so for every later bench."""

    def __init__(self, machine: Machine, *, answer_s: float = ANSWER_S) -> None:
        self._machine, self._answer_s = machine, answer_s
        self._workers: list[subprocess.Popen[str]] = []
        self._lines: list[queue.Queue[str]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lost = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def started(self) -> bool:
        """Whether its processes run."""
        return bool(self._workers)

    def run(self, bench: Bench) -> list[dict[str, Any]]:
        """Return what each rank saw.

        Raises:
            UnavailableError: where a rank failed, or the team cannot be started or does not answer.
        """
        if self._lost:
            raise UnavailableError(self._lost)
        try:
            if not self._workers:
                self._start()
            answers = self._ask(json.dumps(asdict(bench)) + "\n")
        except (OSError, queue.Empty, ValueError) as error:
            said = self._said()
            self.close()
            self._lost = f"the {self._machine.ranks} ranks do not answer: {said or type(error).__name__}"
            raise UnavailableError(self._lost) from error
        except BaseException:
            self.close()
            raise
        failed = [one["failed"] for one in answers if "failed" in one]
        if failed:
            raise UnavailableError(failed[0])
        return [one["data"] for one in answers]

    def close(self) -> None:
        """End and reap every process."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
        self._workers, self._lines = [], []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="foretrain-")
        for rank in range(self._machine.ranks):
            self._workers.append(self._launched(rank, Path(self._folder.name)))
            self._lines.append(queue.Queue())
            threading.Thread(target=_listen, args=(self._workers[-1], self._lines[-1]), daemon=True).start()
        self._answers(START_S)

    def _launched(self, rank: int, folder: Path) -> subprocess.Popen[str]:
        arguments = [str(rank), str(self._machine.ranks), self._machine.device, self._machine.backend, str(folder / "store")]
        settings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        if sys.platform == "linux":
            settings.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a machine need not know its own name
        with (folder / f"said-{rank}").open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "foretrain.validate.measuring.worker", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=said, text=True, encoding="utf-8", env=settings, start_new_session=True,  # Ctrl-C is the parent's to handle
            )  # fmt: skip

    def _ask(self, line: str) -> list[dict[str, Any]]:
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write(line)
            worker.stdin.flush()
        return self._answers(self._answer_s)

    def _answers(self, most_s: float) -> list[dict[str, Any]]:
        """Return a line of each rank; an empty one, which a dead rank leaves, is no JSON."""
        until_s = time.monotonic() + most_s
        return [json.loads(self._next(lines, until_s)) for lines in self._lines]

    def _next(self, lines: queue.Queue[str], until_s: float) -> str:
        """Return the next line, or raise queue.Empty when time is up or a rank has died, for which the others wait in vain."""
        while True:
            try:
                return lines.get(timeout=POLL_S)
            except queue.Empty:
                if time.monotonic() > until_s or any(worker.poll() is not None for worker in self._workers):
                    raise

    def _said(self) -> str:
        """Return the last line that a dead rank wrote."""
        for rank in range(len(self._workers)):
            if self._folder is not None:
                lines = (Path(self._folder.name) / f"said-{rank}").read_text(encoding="utf-8", errors="replace").splitlines()
                if self._workers[rank].poll() is not None and lines:
                    return lines[-1]
        return ""


def _listen(worker: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    """Hand over every line of a rank, and an empty one at its end."""
    assert worker.stdout is not None
    with contextlib.suppress(ValueError, OSError):
        for line in worker.stdout:
            lines.put(line)
    lines.put("")
