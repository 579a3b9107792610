"""One process of a launch: reads cases as lines of JSON, runs them with the others, and answers each. Run with `python -m`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from foretrain.errors import ForetrainError
from foretrain.validate.measuring.processor import settle

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others in one exchange: compiling can take minutes."""
LONGEST_REASON = 300


def main() -> None:
    """Join the launch that the environment names, and serve until standard input ends, as it does when the parent is gone."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to standard output what would break the lines
    device, store = sys.argv[1:3]
    peers = join(device, f"file://{store}")
    _say(out, {"ready": True})
    for line in sys.stdin:
        _say(out, answer(json.loads(line), peers))
    os._exit(0)  # tearing a process group down waits for processes that may be gone


def join(device: str, where: str | None = None) -> Any:
    """Return this process among those of RANK and WORLD_SIZE in the environment, which meet at `where` (None: as torchrun says)."""
    import torch  # noqa: PLC0415  # torch is heavy and optional
    import torch.distributed as dist  # noqa: PLC0415

    from foretrain.validate.training.peers import Peers  # noqa: PLC0415  # brings torch

    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "gloo"
    if device == "cpu":
        settle()
    else:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    if count > 1:
        dist.init_process_group(backend, init_method=where, rank=rank, world_size=count, timeout=PATIENCE)
    return Peers()


def leave(peers: Any) -> None:
    """End a launch that all processes have come to the end of."""
    import torch.distributed as dist  # noqa: PLC0415  # torch is heavy and optional

    peers.meet()
    if dist.is_initialized():
        dist.destroy_process_group()


def answer(job: Mapping[str, Any], peers: Any) -> dict[str, Any]:
    """Return {"data": ...} of a job's case, or {"failed": reason}; after a failure the other processes may be anywhere."""
    from foretrain.validate.case import case_of  # noqa: PLC0415
    from foretrain.validate.training.run_case import Options, run_case  # noqa: PLC0415  # brings torch

    try:
        return {"data": run_case(case_of(job["case"]), Options(**job["options"]), peers)}
    except Exception as error:  # whatever one case meets, memory that ran out among it, is that case's
        return {"failed": said(error), "lost": lost(error)}


def said(error: Exception) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split())[:LONGEST_REASON]
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text or isinstance(error, MemoryError):
        return f"out of memory: {text or 'the host has none left'}"
    return text if isinstance(error, ForetrainError) else f"{type(error).__name__}: {text}"


def lost(error: Exception) -> bool:
    """Return whether an error says only that another process is gone."""
    return any(words in str(error) for words in ("Connection closed by peer", "Connection reset by peer", "Read error", "Broken pipe"))


def _say(out: Any, data: Mapping[str, Any]) -> None:
    out.write(json.dumps(data) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
