"""The benchmarks of MLPerf training as models of the library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foretrain.errors import ModelError, nearest
from foretrain.models.load import load_model
from foretrain.models.model import Model
from foretrain.validate.classic_stacks import TUNED


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark: how its model is made, its optimizer, tensor-parallel degree and software of the reference submissions."""

    model: Callable[[], Model]
    optimizer: str
    tensor: int = 1
    software: str = TUNED
    assumed: tuple[str, ...] = ()


ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
"""What the reference of Llama 2 70B LoRA puts adapters beside (mlcommons/training, llama2_70b_lora/README.md)."""

BENCHMARKS = {
    "bert": Benchmark(
        model=lambda: load_model("bert-large").at_sequence(256), optimizer="adamw",
        assumed=("256 tokens a sample: padding left out (Krell et al., arXiv:2107.02027)",),
    ),
    "resnet": Benchmark(model=lambda: load_model("resnet-50").at_image(224), optimizer="momentum"),
    "ssd": Benchmark(model=lambda: load_model("retinanet").at_image(800), optimizer="adamw"),
    "unet3d": Benchmark(model=lambda: load_model("unet3d"), optimizer="momentum"),
    "dlrm_dcnv2": Benchmark(model=lambda: load_model("dlrm-dcnv2"), optimizer="sgd"),
    "llama2_70b_lora": Benchmark(
        model=lambda: load_model("llama2-70b").at_sequence(8192).with_lora(16, ATTENTION), optimizer="adamw", tensor=4, software="nemo",
        assumed=("adapters of rank 16 on the products of attention, 4 tensor-parallel ranks",),
    ),
}  # fmt: skip


def benchmark_named(name: str) -> Benchmark:
    """Return the benchmark of a name.

    Raises:
        ModelError: where it is none that is simulated.
    """
    if name not in BENCHMARKS:
        raise ModelError(f"benchmark {name!r} is not simulated; use one of {', '.join(BENCHMARKS)}{nearest(name, BENCHMARKS)}")
    return BENCHMARKS[name]
