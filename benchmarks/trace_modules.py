"""Time and memory of tracing modules: Llama 3 70B of transformers under 20 s and 1 GB, architectures of timm under 0.5 s each.

Each runs in a process of its own, so that its peak memory is its own: `python benchmarks/trace_modules.py`. Needs torch, transformers
and timm.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

ARCHITECTURES = ("resnet50", "vit_base_patch16_224", "swin_base_patch4_window7_224", "tf_efficientnet_b4", "convnext_tiny", "densenet121")
GIBI = 2**20
"""Units of `ru_maxrss` in a GiB."""


def llama() -> str:
    """Return the line of Llama 3 70B: built without memory, traced, and a step of AdamW predicted."""
    import torch  # noqa: PLC0415  # its import is no part of a trace

    from foretrain.models.trace_timm import imported  # noqa: PLC0415

    imported()  # transformers imports torchvision as timm does
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    import foretrain as ft  # noqa: PLC0415

    config = LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8, vocab_size=128256,
        max_position_embeddings=8192, use_cache=False,
    )  # fmt: skip
    start = time.perf_counter()
    with torch.device("meta"):
        module = LlamaForCausalLM(config).to(torch.bfloat16)
    built = time.perf_counter()
    model = ft.from_module(module, torch.empty((2, 8192), dtype=torch.int64, device="meta"))
    traced = time.perf_counter()
    plan, recipe = ft.Plan(dp=4, tp=8, pp=4), ft.Recipe(global_batch=128, optimizer="adamw")
    prediction = ft.simulate(model, ft.load_cluster("dgx-h100:16"), plan, recipe, software=ft.load_software("torchtitan"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIBI
    return (
        f"Llama 3 70B: {model.parameters:,} parameters, built in {built - start:.1f} s, traced in {traced - built:.1f} s (at most 20), "
        f"simulated in {time.perf_counter() - traced:.1f} s; peak {peak:.2f} GiB (at most 1); step {prediction.step_s:.2f} s"
    )


def architectures() -> str:
    """Return a line for some architectures of timm, each built and traced."""
    import foretrain as ft  # noqa: PLC0415
    from foretrain.models.trace_timm import imported  # noqa: PLC0415

    imported()
    ft.load_model("timm:resnet18")  # what torch imports on its first use
    times = []
    for name in ARCHITECTURES:
        start = time.perf_counter()
        ft.load_model(f"timm:{name}")
        times.append(time.perf_counter() - start)
    mean = sum(times) / len(times)
    return f"timm, built and traced: {', '.join(f'{n} {t:.2f} s' for n, t in zip(ARCHITECTURES, times, strict=True))}; mean {mean:.2f} s"


def main() -> None:
    """Print the line that was asked for, or both."""
    if len(sys.argv) > 1:
        print({"llama": llama, "timm": architectures}[sys.argv[1]]())
        return
    for what in ("llama", "timm"):
        subprocess.run([sys.executable, __file__, what], check=True)


if __name__ == "__main__":
    main()
