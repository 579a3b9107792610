"""Time and peak memory of writing a timeline: linear in its slices, under 500 MB for a million.

Each size runs in a process of its own, so that its peak memory is its own: `python benchmarks/trace.py`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from foretrain.sim.timeline import Flow, MemoryPoint, SimulatedRank, Slice, Timeline
from foretrain.sim.trace import write_trace

RANKS = 64
SLICE_S = 1e-4
SIZES = (100_000, 1_000_000)
GIGA = 1e9


def busy_timeline(slices: int) -> Timeline:
    """Return a timeline of ranks that compute without a pause; every other slice allocates and every fourth sends."""
    rounds = slices // RANKS
    return Timeline(
        ranks=tuple(SimulatedRank(index=rank, stage=rank, label=f"stage {rank}", multiplicity=16) for rank in range(RANKS)),
        streams=("compute",),
        slices=tuple(
            Slice(rank, 0, f"forward {turn}", "math", turn * SLICE_S, SLICE_S, 0.02 + 1e-5 * (turn % 7))
            for turn in range(rounds)
            for rank in range(RANKS)
        ),
        flows=tuple(
            Flow(rank, (turn + 1) * SLICE_S, (rank + 1) % RANKS, (turn + 1.5) * SLICE_S)
            for turn in range(0, rounds, 4)
            for rank in range(RANKS)
        ),
        memory=tuple(
            MemoryPoint(rank, turn * SLICE_S, GIGA * (1 + turn % 9)) for turn in range(0, rounds, 2) for rank in range(RANKS)
        ),
        step_s=(rounds + 1) * SLICE_S,
        baseline_w=150.0,
    )


def measure(slices: int) -> str:
    """Return one line of the table, measured in this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "timeline.json.gz"
        timeline = busy_timeline(slices)
        start = time.perf_counter()
        write_trace(timeline, path, title=f"{slices} slices")
        seconds = time.perf_counter() - start
        size_bytes = path.stat().st_size
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"{slices:>10,} {seconds:>8.2f} s {1e6 * seconds / slices:>9.2f} µs {peak_bytes / 1e6:>8.0f} MB {size_bytes / 1e6:>8.1f} MB"


def main() -> None:
    """Print the table, or one line of it where a size is given."""
    if len(sys.argv) > 1:
        return print(measure(int(sys.argv[1])))
    print(f"{'slices':>10} {'write':>10} {'per slice':>12} {'peak memory':>11} {'file':>11}")
    for size in SIZES:
        subprocess.run([sys.executable, __file__, str(size)], check=True)
    return None


if __name__ == "__main__":
    main()
