"""What can lie in the memory of the host, as `--offload` says it."""

from __future__ import annotations

from foretrain.errors import PlanError, nearest

PARTS = ("optimizer", "parameters", "activations")


def offloaded(words: str | None) -> frozenset[str]:
    """Return the parts that `optimizer,activations` and the like name.

    Raises:
        PlanError: for a part that there is not.
    """
    parts = frozenset(part.strip() for part in (words or "").split(",") if part.strip())
    if words is not None and not parts:
        raise PlanError(f"offload={words!r} names nothing; use {', '.join(PARTS)}, or leave it out")
    for part in sorted(parts - set(PARTS)):
        raise PlanError(f"offload={words!r}: {part!r} cannot be offloaded; use {', '.join(PARTS)}{nearest(part, PARTS)}")
    return parts
