"""`foretrain trace`: a module of the user's as a model, printed and written as a profile."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from foretrain.charts.words import count
from foretrain.cli_options import TraceOptions
from foretrain.cli_output import columns, cut, ink, say, say_json
from foretrain.errors import UsageError
from foretrain.models.model import Model
from foretrain.models.moves import Moves
from foretrain.models.opdata import WORDS
from foretrain.models.trace import from_module
from foretrain.models.traced import save_model
from foretrain.units import show

SUFFIXES = (".yaml", ".yml", ".json")


def run_trace(options: TraceOptions) -> int:
    """Trace the module that a factory builds, say what it asks for, and return the exit status."""
    if options.out is not None and options.out.suffix not in SUFFIXES:
        raise UsageError(f"--out {str(options.out)[:100]!r} is no profile; give a name that ends in {', '.join(SUFFIXES)}")
    model, buffers = _traced(options)
    if options.out is not None:
        save_model(model, options.out)
    data = _data(model, buffers)
    if options.json:
        say_json(data)
        return 0
    say(ink().strong(f"{model.name}: {count(model.parameters)} parameters"))
    say(cut(columns(_rows(model, data))))
    if options.out is not None:
        say(f"written to {options.out}; foretrain simulate --model {_path(options.out)} predicts its training")
    return 0


def _traced(options: TraceOptions) -> tuple[Model, int]:
    try:
        from foretrain.models.trace_factory import build_module, examples  # noqa: PLC0415  # brings torch
    except ImportError as error:
        raise UsageError(f"foretrain trace needs torch ({error}); install it: pip install 'foretrain[torch]'") from error
    inputs = examples(options.input, options.input_dtype)
    module = build_module(options.factory)
    return from_module(module, inputs), sum(one.numel() for one in module.buffers())


def _data(model: Model, buffers: int) -> dict[str, Any]:
    return {
        "name": model.name, "kind": "model", "parameters": model.parameters, "buffers": buffers,
        "flop_per_sample": model.flop_per_sample(), "activation_bytes_per_sample": model.activation_bytes_per_sample(),
        "layers": model.depth, "seq_len": model.seq_len, "image_size": model.image_size, "tensor_dims": dict(model.tensor_dims),
        "uncut": dict(model.uncut), "ops": _ops(model),
        "blocks": [{"name": block.name, "count": times, "parameters": block.parameters} for block, times in model.blocks()],
    }  # fmt: skip


def _ops(model: Model) -> dict[str, int]:
    """Return how many ops of each kind the model runs forward."""
    found: Counter[str] = Counter()
    for block, times in model.blocks():
        for op in block.ops:
            if not isinstance(op, Moves) or op.forward_pass.launches:
                found[WORDS[type(op)]] += times
    return dict(found)


def _rows(model: Model, data: dict[str, Any]) -> list[tuple[str, str, str]]:
    cuts = [(f"no {kind} cut", "", why) for kind, why in model.uncut.items()]
    blocks = [(block.name, f"{block.parameters:,}", f"× {times}" if times > 1 else "") for block, times in model.blocks()]
    return [
        ("field", "value", ""),
        ("parameters", f"{model.parameters:,}", f"and {data['buffers']:,} of buffers, which are not trained"),
        ("layers", str(model.depth), "that a pipeline can cut"),
        ("model FLOPs", show(data["flop_per_sample"], "FLOP"), "per sample, forward and backward"),
        ("activations", show(data["activation_bytes_per_sample"], "B"), "saved per sample, 16 bit"),
        *((name, f"{size:,}", "tensor parallelism must divide it") for name, size in model.tensor_dims.items()),
        *cuts,
        *(blocks if len(blocks) <= 40 else [*blocks[:39], (f"… and {len(blocks) - 39} more blocks", "", "")]),
    ]


def _path(path: Path) -> str:
    """Return a path that no library name can be taken for."""
    return str(path) if "/" in str(path) else f"./{path}"
