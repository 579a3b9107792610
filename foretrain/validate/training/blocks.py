"""What is done to the blocks of a module one by one: recomputation and compilation."""

from __future__ import annotations

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from foretrain.sim.recompute_share import recompute_share
from foretrain.validate.training.layered import blocks_of


def recomputed(module: nn.Module, words: str) -> set[nn.Module]:
    """Return the blocks of a whole module that a plan's `recompute` has run again in backward."""
    share = recompute_share(words)
    return {block for number, block in enumerate(blocks_of(module)) if share.applies(number)}


def checkpoint(module: nn.Module, chosen: set[nn.Module]) -> None:
    """Have chosen blocks keep their inputs only, in place."""
    blocks = blocks_of(module)
    for number, block in enumerate(blocks):
        if block in chosen:
            blocks[number] = checkpoint_wrapper(block)


def compile_module(module: nn.Module, *, whole: bool) -> None:
    """Compile a module in place when it is first run: whole, or block by block where something happens between blocks."""
    for one in [module] if whole else blocks_of(module):
        one.compile()
