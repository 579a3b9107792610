"""Microbenchmarks of a device within a budget: each is on the disk as soon as it is measured, and a next start goes on from there.

Run alone with `python -m foretrain.validate.microbench --device cpu --budget 20s --out x.jsonl`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from foretrain.errors import OutputError, UsageError
from foretrain.validate.measuring import host
from foretrain.validate.measuring.bench import Bench, Lab, Machine
from foretrain.validate.measuring.counters import UnavailableError
from foretrain.validate.measuring.kinds import expected_s, measured_in, ordered
from foretrain.validate.measuring.processor import settle
from foretrain.validate.measuring.stamp import opened
from foretrain.validate.measuring.team import Team
from foretrain.validate.records import Record, append_record, of_kind, read_records

DEVICES = ("cpu", "cuda")
MEMORY_SHARE = 0.5
"""Of the memory that is free, what one bench may hold."""
TEAM_START_S = 6.0
LARGE_BYTES = 2**30
LONGEST_REASON = 300
Progress = Callable[[int, int, str], None]
"""Seconds gone, seconds to spend, and what is measured."""


def measure(
    device: str,
    budget_s: float,
    path: Path,
    *,
    ranks: int | None = None,
    progress: Progress | None = None,
    only: Collection[str] | None = None,
) -> list[Record]:
    """Measure for `budget_s` and return every record of the file: its stamp, and `micro` records, those of earlier starts among them.

    A bench that fails or does not fit leaves a record with `skipped`, the reason, in the place of its numbers, and is tried again by
    the next start. `ranks` run together in collectives: 2 on a CPU, every GPU. `only` names kinds.

    Raises:
        UsageError: for a device that is not there, or a file of another device.
        OutputError: where the file cannot be written; what was measured stays in it.
        KeyboardInterrupt: as the user's; what was measured stays, and no process is left behind.
    """
    until_s = time.perf_counter() + budget_s
    machine = Machine(device=device, ranks=_ranks(device, ranks))
    benches = ordered(machine, budget_s, only)
    done = {record.key for record in of_kind(opened(path, device), "micro") if "skipped" not in record.data}
    with _one_thread(device), Team(machine) as team:
        lab = Lab(device=device)
        for bench in (one for one in benches if one.key not in done):
            left_s = until_s - time.perf_counter()
            if left_s <= 0:
                break
            start_s = TEAM_START_S if bench.team and not team.started else 0.0
            if expected_s(bench, device, lab.limit.most_s) + start_s > left_s:
                continue  # a shorter one may still fit
            if progress is not None:
                progress(int(budget_s - left_s), max(1, int(budget_s)), bench.name)
            append_record(path, Record(kind="micro", key=bench.key, data=_data(bench, lab, team)))
            _usable(device)
    if progress is not None:
        progress(max(1, int(budget_s)), max(1, int(budget_s)), "measured")
    return read_records(path)


def _ranks(device: str, ranks: int | None) -> int:
    """Return how many ranks run together, having seen that the device is there."""
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is unknown; use one of {', '.join(DEVICES)}")
    try:
        import torch  # noqa: PLC0415 - torch is heavy and optional
    except ImportError as error:
        raise UsageError("measuring needs torch; pip install 'foretrain[torch]'") from error
    if device == "cpu":
        return 2 if ranks is None else ranks
    if not torch.cuda.is_available():
        raise UsageError("device cuda is not there: torch sees no GPU; use cpu, or a torch built for the GPU's driver")
    count = torch.cuda.device_count()
    if ranks is not None and ranks > count:
        raise UsageError(f"ranks={ranks} do not fit on {count} GPUs; give at most {count}")
    return count if ranks is None else ranks


def _data(bench: Bench, lab: Lab, team: Team) -> dict[str, Any]:
    """Return what a bench's record says."""
    data: dict[str, Any] = {"bench": bench.name, "dtype": bench.dtype, "shape": dict(bench.shape)}
    try:
        _fits(bench, lab.device)
        found = _of_team(team.run(bench)) if bench.team else measured_in(lab, bench)
        return {**data, "flop": bench.flop, "bytes": bench.bytes, **found}
    except OutputError:
        raise
    except Exception as error:  # whatever one bench meets, memory that ran out among it, the next is run
        why = str(error) if isinstance(error, UnavailableError) else f"{type(error).__name__}: {error}"
        return {**data, "skipped": " ".join(why.split())[:LONGEST_REASON]}
    finally:
        _freed(bench, lab.device)


def _of_team(seen: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the first rank saw; of ranks that were busy alike, each number's mean."""
    times = [one["seconds"] for one in seen if "seconds" in one]
    mean = {name: sum(one[name] for one in times) / len(times) for name in times[0]}
    references = [one["reference_s"] for one in seen if "reference_s" in one]
    slowest = {"reference_s": max(references)} if references else {}
    return {**seen[0], **slowest, "seconds": {**mean, "repeats": min(one["repeats"] for one in times)}}


def _fits(bench: Bench, device: str) -> None:
    import torch  # noqa: PLC0415

    free = torch.cuda.mem_get_info()[0] if device == "cuda" else host.available_bytes()
    ranks = bench.shape.get("ranks", bench.shape.get("busy_ranks", 1)) if bench.team and device == "cpu" else 1
    if bench.held_bytes * ranks > MEMORY_SHARE * free:
        needed = bench.held_bytes * ranks / 1e9
        raise UnavailableError(f"it needs {needed:.2f} GB of memory, and {free / 1e9:.2f} GB are free, of which half may be used")


def _freed(bench: Bench, device: str) -> None:
    """Give a large bench's memory back."""
    import torch  # noqa: PLC0415

    if device == "cuda" and bench.held_bytes > LARGE_BYTES:
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


def _usable(device: str) -> None:
    """Stop where a fault has left the device useless to this process.

    Raises:
        UsageError: with what the driver says.
    """
    import torch  # noqa: PLC0415

    if device == "cuda":
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise UsageError(f"the GPU is lost to this process: {str(error).splitlines()[0]}; start again: it goes on from here") from error


@contextlib.contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """Run a CPU's benches as each rank of a job there runs, and leave this process as it was but for what it keeps of its memory."""
    import torch  # noqa: PLC0415

    threads = torch.get_num_threads()
    if device == "cpu":
        settle()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


if __name__ == "__main__":
    from foretrain.validate.measuring.alone import main

    main()
