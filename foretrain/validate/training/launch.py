"""Processes of the trainer: started together, given case after case, and always reaped."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

START_S = 120.0
CASE_S = 900.0
"""Longer than any case with its compilation; what takes longer hangs."""
POLL_S = 0.05
GRACE_S = 1.0
"""How long processes that saw another die may take to say so."""
Answer = dict[str, Any]


class LostError(Exception):
    """Processes that ended or do not answer; the text says which and how."""


class Workers:
    """As many processes as a case has ranks. After an answer with `failed` they are not to be used again."""

    def __init__(self, device: str, count: int) -> None:
        self._device, self._count = device, count
        self._processes: list[subprocess.Popen[str]] = []
        self._answers: queue.Queue[tuple[int, Answer | None]] = queue.Queue()
        self._folder = tempfile.TemporaryDirectory(prefix="foretrain-")

    def __enter__(self) -> Self:
        try:
            for rank in range(self._count):
                with _unbroken():
                    self._processes.append(self._started(rank))
                stream = self._processes[rank].stdout
                threading.Thread(target=self._listen, args=(rank, stream), daemon=True).start()
            self._collected(START_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def run(self, job: Mapping[str, Any]) -> Answer:
        """Return the first process's answer to a job, or the failure that explains the others'.

        Raises:
            LostError: where a process ended, as when it is killed, or did not answer in time.
        """
        line = json.dumps(job) + "\n"
        for one in self._processes:
            assert one.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it is dead, as is found out below
                one.stdin.write(line)
                one.stdin.flush()
        return self._collected(CASE_S)

    def close(self) -> None:
        """End and reap every process."""
        for one in self._processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(one.pid, signal.SIGKILL)  # a session of its own, with whatever it started
        for one in self._processes:
            one.wait()
            for stream in (one.stdin, one.stdout):
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
        self._processes = []
        self._folder.cleanup()

    def _started(self, rank: int) -> subprocess.Popen[str]:
        places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self._count)}
        settings = {**os.environ, **places, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if self._device == "cpu":
            settings["OMP_NUM_THREADS"] = "1"
        if sys.platform == "linux":
            settings.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a machine need not know its own name
        arguments = [self._device, str(Path(self._folder.name) / "store")]
        with self._said(rank).open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "foretrain.validate.training.worker", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=said, text=True, encoding="utf-8", env=settings, start_new_session=True,  # Ctrl-C is the parent's to handle
            )  # fmt: skip

    def _listen(self, rank: int, stream: IO[str] | None) -> None:
        """Hand over every answer of a process, and None at its end."""
        assert stream is not None
        with contextlib.suppress(ValueError, OSError):
            for line in stream:
                self._answers.put((rank, json.loads(line)))
        self._answers.put((rank, None))

    def _collected(self, most_s: float) -> Answer:
        """Return what all processes said of one job; the first failure that is no echo of another's ends the waiting."""
        until_s = time.monotonic() + most_s
        found: dict[int, Answer] = {}
        echo: Answer | None = None
        while len(found) < self._count:
            try:
                rank, answer = self._answers.get(timeout=max(POLL_S, until_s - time.monotonic()))
            except queue.Empty:
                if echo is not None:
                    return echo
                raise LostError(f"{self._count - len(found)} of {self._count} processes did not answer within {most_s:.0f} s") from None
            if answer is None:
                raise LostError(self._end(rank))
            if "failed" in answer and not answer["lost"]:
                return answer
            if "failed" in answer:  # what it lost is told by the end of another, or by another's failure
                echo, until_s = answer, time.monotonic() + GRACE_S
            found[rank] = answer
        return echo or found[0]

    def _end(self, rank: int) -> str:
        """Return how a process ended."""
        code = self._processes[rank].wait()
        if code < 0:
            name = signal.Signals(-code).name
            memory = ", as the system does where memory runs out" if name == "SIGKILL" else ""
            return f"rank {rank} of {self._count} was ended by {name}{memory}"
        lines = [line for line in self._said(rank).read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return f"rank {rank} of {self._count} ended with status {code}{': ' + lines[-1][:300] if lines else ''}"

    def _said(self, rank: int) -> Path:
        return Path(self._folder.name) / f"said-{rank}"


@contextlib.contextmanager
def _unbroken() -> Iterator[None]:
    """Let Ctrl-C wait, so that no process is started without being noted."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Crews:
    """Launches of as many processes as jobs ask for, each started when it is first needed and kept for the next job of its size."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._running: dict[int, Workers] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for count in list(self._running):
            self._running.pop(count).close()

    def run(self, count: int, job: Mapping[str, Any]) -> Answer:
        """Return the answer of `count` processes to a job; after a failure they are ended, for they may be anywhere."""
        try:
            if count not in self._running:
                self._running[count] = Workers(self._device, count).__enter__()
            answer = self._running[count].run(job)
        except LostError as error:
            answer = {"failed": str(error)}
        if "failed" in answer and count in self._running:
            self._running.pop(count).close()
        return answer
