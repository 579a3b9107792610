"""One rank of a team: reads benches as lines of JSON, runs them with the others, and writes what it saw. Run with `python -m`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Any

from foretrain.validate.measuring.bench import LIMITS, Bench, Lab
from foretrain.validate.measuring.processor import settle


def main() -> None:
    """Join the team that the arguments name, and serve until standard input ends, as it does when the parent is gone."""
    rank, ranks, device, backend, store = sys.argv[1:6]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to standard output what would break the lines
    _join(int(rank), int(ranks), device, backend, store)
    lab = Lab(device=device, rank=int(rank), ranks=int(ranks))
    _say(out, {"ready": True})
    for line in sys.stdin:
        _say(out, _run(json.loads(line), lab))
    os._exit(0)  # tearing a process group down waits for ranks that may be gone


def _join(rank: int, ranks: int, device: str, backend: str, store: str) -> None:
    import torch  # noqa: PLC0415 - torch is heavy and optional
    import torch.distributed as dist  # noqa: PLC0415

    settle()
    if device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=ranks)


def _run(data: dict[str, Any], lab: Lab) -> dict[str, Any]:
    """Return what a bench gave, or why it gave nothing."""
    import torch  # noqa: PLC0415
    import torch.distributed as dist  # noqa: PLC0415

    from foretrain.validate.measuring.kinds import measured_in  # noqa: PLC0415 - the team is joined first

    bench = Bench(**data)
    try:
        lab.limit = replace(LIMITS[lab.device], relative=0.0) if "busy_ranks" in bench.shape else LIMITS[lab.device]
        if "busy_ranks" in bench.shape:
            dist.barrier()  # all ranks are busy at once, and for equally long
        return {"data": measured_in(lab, bench)}
    except Exception as error:  # one bench that fails says why, and the next is run
        return {"failed": f"{type(error).__name__}: {error}"}
    finally:
        if lab.device == "cuda":
            torch.cuda.empty_cache()  # the parent and its benches share the first GPU


def _say(out: Any, data: dict[str, Any]) -> None:
    out.write(json.dumps(data) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
