"""Traced under autocast, a module casts what torch casts."""

from collections import Counter

import pytest

import foretrain as ft
from foretrain.errors import ForetrainError
from foretrain.models.moves import Moves
from foretrain.models.ops import WIDE, Layout

torch = pytest.importorskip("torch")


class _Dispatched(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts casts, and the bytes that they read and write."""

    def __init__(self):
        super().__init__()
        self.casts = Counter()
        self.moved = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ == "_to_copy":
            self.casts[args[0].dtype, result.dtype] += 1
            self.moved += sum(one.numel() * one.element_size() for one in (args[0], result))
        return result


def _chain():
    return torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 16))


def test_casts_are_those_that_torch_runs():
    """The oracle is torch's own autocast; on CPU its list agrees with that of accelerators for linear layers and activations."""
    module, data = _chain(), torch.randn(8, 32)
    with _Dispatched() as seen:
        with torch.autocast("cpu", torch.bfloat16):
            out = module(data)
        out.float().square().sum().backward()
    model = ft.from_module(_chain(), torch.empty(8, 32), loss=lambda out: out.float().square().sum(), autocast="bf16")
    layout = Layout(micro_batch=8)
    kernels = [
        (kernel, count)
        for block, count in model.blocks()
        for op in block.ops
        if isinstance(op, Moves)
        for kernel in (*op.forward(layout), *op.backward(layout))
    ]
    copied = sum(
        kernel.moved_bytes * share * count
        for kernel, count in kernels
        for name, share in kernel.classes
        if name.removesuffix(WIDE) == "cast"
    )
    assert copied == pytest.approx(seen.moved, rel=2e-3)


def test_weights_are_cast_once_a_pass_and_stay_parameters():
    plain, cast = (ft.from_module(_chain(), torch.empty(8, 32), autocast=one) for one in (None, "bf16"))
    assert cast.parameters == plain.parameters
    assert cast.flop_per_sample() == plain.flop_per_sample()
    ops = [op for block, _ in cast.blocks() for op in block.ops if op.name == "weight_casts"]
    assert sum(op.forward_pass.launches for op in ops) == len(list(_chain().parameters()))


def test_norms_and_losses_are_in_fp32():
    module = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.LayerNorm(32), torch.nn.Linear(32, 8))
    model = ft.from_module(module, torch.empty(4, 32), autocast="bf16")
    moves = [op for block, _ in model.blocks() for op in block.ops if isinstance(op, Moves)]
    norm = next(op for op in moves if f"norm{WIDE}" in dict(op.forward_pass.classes))
    assert norm.forward_pass.moved.octets >= 2 * 32 * 4


def test_another_precision_is_refused(tmp_path):
    model = ft.from_module(_chain(), torch.empty(8, 32), autocast="bf16")
    path = tmp_path / "chain.yaml"
    ft.save_model(model, path)
    recipe = ft.Recipe(global_batch=8, precision="fp16")
    for one in (model, ft.load_model(str(path))):
        with pytest.raises(ForetrainError, match="bf16"):
            ft.simulate(one, ft.load_cluster("dgx-h100:1"), ft.Plan(), recipe)
    with pytest.raises(ForetrainError, match="fp16"):
        ft.from_module(_chain(), torch.empty(8, 32), autocast="fp8")
