"""Launches that somebody else made: torchrun, or a step of Slurm."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from foretrain.errors import UsageError

TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
FIRST_PORT, PORTS = 20_000, 20_000
"""A step of Slurm meets at a port that follows from its job, so that all of its processes know it and two jobs seldom meet."""


def joined(environment: Mapping[str, str]) -> dict[str, str] | None:
    """Return the variables by which this process joins the launch that it is part of; None where it is on its own.

    Raises:
        UsageError: where a launch is half described.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        missing = [name for name in TORCHRUN if name not in environment]
        if missing:
            raise UsageError(f"RANK and WORLD_SIZE are set, but not {', '.join(missing)}; start with torchrun, or unset them")
        return {name: environment[name] for name in (*TORCHRUN, "LOCAL_RANK") if name in environment}
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return _slurm(environment)
    return None


def _slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """**Source:** Slurm's srun(1), output environment variables."""
    return {
        "RANK": environment["SLURM_PROCID"],
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or _first_host(environment.get("SLURM_STEP_NODELIST", "")),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(FIRST_PORT + int(environment.get("SLURM_JOB_ID", "0")) % PORTS),
    }


def _first_host(nodes: str) -> str:
    """Return the first name of a list such as `node[3-5,9]`, which Slurm itself writes out where it is not plain."""
    if "[" not in nodes:
        return nodes.split(",", maxsplit=1)[0] or "127.0.0.1"
    try:
        found = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"Slurm's nodes {nodes} cannot be written out ({error}); set MASTER_ADDR to the name of the first") from error
    return found.stdout.split()[0]
