"""Sizes that a network may have, known without building it."""

from __future__ import annotations

from foretrain.errors import UsageError
from foretrain.validate.case import Net

RESNET_BLOCKS = {18: 8, 34: 16, 50: 16}
"""Residual blocks by depth."""
LEAST_IMAGE = 32


def check_net(net: Net) -> None:
    """Refuse sizes that no network of the kind has.

    Raises:
        UsageError: naming the size and what would do.
    """
    sizes = net.sizes
    if net.kind == "gpt" and sizes["hidden"] % sizes["heads"]:
        raise UsageError(f"gpt:heads={sizes['heads']} does not divide hidden={sizes['hidden']}; give a multiple as hidden")
    if net.kind == "resnet" and sizes["depth"] not in RESNET_BLOCKS:
        raise UsageError(f"resnet:depth={sizes['depth']} is none; use one of {', '.join(map(str, RESNET_BLOCKS))}")
    if net.kind == "resnet" and sizes["image"] < LEAST_IMAGE:
        raise UsageError(f"resnet:image={sizes['image']} leaves nothing after five halvings; give at least {LEAST_IMAGE} pixels a side")
    if net.kind == "module" and not net.sample_shape:
        raise UsageError(f"{net.factory} has no sample to train on; give the shape of one, without the batch, such as 3x224x224")


def blocks_in(net: Net) -> int | None:
    """Return how many blocks a network repeats, None where only its module knows."""
    if net.kind == "resnet":
        return RESNET_BLOCKS[net.sizes["depth"]]
    return net.sizes.get({"mlp": "depth", "gpt": "layers"}.get(net.kind, ""))
