"""Which tuned submissions run products in fp8: those of transformers on accelerators that Transformer Engine was made for.

Their source says "mixed" of everything; what it means is what the code of that benchmark does on that accelerator. Products of
convolutions and of recommenders stay in 16 bits there.

**Source:** NVIDIA, submissions to MLPerf Training v2.1 and later (BERT and Llama 2 70B LoRA: layers of Transformer Engine with delayed
scaling on Hopper and later).
"""

from __future__ import annotations

import re

from foretrain.hardware.accelerator import Accelerator
from foretrain.models.attention import CoreAttention
from foretrain.models.model import Model

ENGINE = re.compile(r"^g?[hb]\d")
"""Keys of accelerators of the Hopper and Blackwell generations."""
FEW_BITS = "fp8"
SAID = "products of transformer layers in fp8, as tuned submissions run them on this accelerator"


def in_few_bits(model: Model, chip: Accelerator) -> bool:
    """Tell whether a tuned submission runs the products of a model's layers in fp8 on an accelerator."""
    transformer = any(isinstance(op, CoreAttention) for block, _ in model.layers for op in block.ops)
    return transformer and FEW_BITS in chip.peak_flop_per_s and ENGINE.match(chip.key) is not None
