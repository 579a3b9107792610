"""How much of a model runs again in backward, as `--recompute` says it: a policy, and every which layer it is for."""

from __future__ import annotations

from dataclasses import dataclass

from foretrain.errors import PlanError, nearest

CLASSES = ("attention", "norms", "activations")
POLICIES = ("none", "selective", "full", *CLASSES)
"""What runs again: nothing; what the framework calls selective; a whole layer; or the ops of one class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecomputeShare:
    """A policy for every `every`-th layer of the model."""

    policy: str
    every: int

    def applies(self, layer: int) -> bool:
        """Return whether a layer, counted from 0 through the model, is one of them: the `every`-th, the second of them, and so on."""
        return self.policy != "none" and (layer + 1) % self.every == 0


def recompute_share(words: str) -> RecomputeShare:
    """Return what `none`, `selective`, `full`, `full:2` and the like mean.

    Raises:
        PlanError: where they mean nothing; names the nearest that does.
    """
    policy, colon, number = str(words).partition(":")
    if policy not in POLICIES:
        known = ", ".join(POLICIES)
        raise PlanError(f"recompute={words!r} is unknown; use one of {known}, or full:2 for every second layer{nearest(policy, POLICIES)}")
    if not colon:
        return RecomputeShare(policy=policy, every=1)
    if not (number.isascii() and number.isdecimal()) or int(number) < 1:
        raise PlanError(f"recompute={words!r} says no share of the layers; write {policy}:2 for every second one")
    if policy == "none":
        raise PlanError(f"recompute={words!r} is a share of nothing; use full:{number} or selective:{number}, or none alone")
    return RecomputeShare(policy=policy, every=int(number))
