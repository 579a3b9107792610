"""Architectures of timm by name: parameters, FLOPs, image sizes, names of old."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

import foretrain as ft
from foretrain.cli import run
from foretrain.models.convolution import Conv
from foretrain.models.ops import Layout

torch = pytest.importorskip("torch")
if find_spec("timm") is None:
    pytest.skip("needs timm", allow_module_level=True)
from foretrain.models import trace_timm as build  # noqa: E402  # after torch was found

DENSE = ("resnet18", "vgg11_bn", "vit_tiny_patch16_224", "mixer_s32_224", "resnetv2_50", "densenet121", "convit_tiny", "cait_xxs24_224")
"""Without grouped convolutions, whose gradients torch counts as if they had one group."""
GROUPED = (
    "mobilenetv2_050", "resnext26ts", "xcit_nano_12_p16_224", "convnext_atto", "efficientnet_b0", "swinv2_tiny_window8_256",
    "tnt_s_patch16_224",
)  # fmt: skip


def module_of(name: str) -> Any:
    with torch.device("meta"):
        return build.imported().create_model(name)


def passes(name: str, *, backward: bool) -> tuple[float, float]:
    """Return FLOPs of a batch of two: what torch counts, and the model's."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  # torch is optional

    module, model = module_of(name).train(), ft.load_model(f"timm:{name}")
    with FlopCounterMode(display=False) as counter:
        out = module(torch.empty(2, 3, model.image_size, model.image_size, device="meta"))
        if backward:
            out.sum().backward()
    layout = Layout(micro_batch=2)
    kernels = [
        (count, kernel)
        for block, count in model.blocks()
        for op in block.ops
        for kernel in (*op.forward(layout), *(op.backward(layout) if backward else ()))
    ]
    return float(counter.get_total_flops()), sum(count * kernel.model_flop for count, kernel in kernels)


@pytest.mark.parametrize("name", DENSE)
def test_flop_are_what_torch_counts_forward_and_backward(name: str) -> None:
    """To the last multiply-add."""
    torchs, ours = passes(name, backward=True)
    assert ours == torchs


@pytest.mark.parametrize("name", GROUPED)
def test_forward_flop_are_what_torch_counts(name: str) -> None:
    """Grouped convolutions included."""
    torchs, ours = passes(name, backward=False)
    assert ours == torchs


@pytest.mark.parametrize("name", [*DENSE, *GROUPED])
def test_parameters_are_those_of_the_module(name: str) -> None:
    """Exactly, buffers apart."""
    assert ft.load_model(f"timm:{name}").parameters == sum(one.numel() for one in module_of(name).parameters())


def test_a_grouped_convolution_costs_backward_twice_what_it_costs_forward() -> None:
    """Each gradient is one pass over the same taps; the first layer has no gradient of the image."""
    model = ft.load_model("timm:mobilenetv2_050")
    layout = Layout(micro_batch=1)
    convolutions = [op for block, _ in model.blocks() for op in block.ops if isinstance(op, Conv)]
    assert any(op.groups > 1 for op in convolutions)
    for op in convolutions:
        kernels = [sum(kernel.flop for kernel in passes(layout)) for passes in (op.forward, op.backward)]
        assert kernels[1] == (2 if op.input_grad else 1) * kernels[0]


def test_image_sizes() -> None:
    """Convolutions grow with the area; a size that an architecture cannot take is refused."""
    own, large = ft.load_model("timm:resnet18"), ft.load_model("timm:resnet18").at_image(448)
    assert (own.image_size, large.image_size, own.item) == (224, 448, "image")
    assert large.flop_per_sample() == pytest.approx(4 * own.flop_per_sample(), rel=1e-3)
    assert large == ft.load_model("timm:resnet18", image_size=448)
    assert ft.load_model("timm:vit_tiny_patch16_224", image_size=384).image_size == 384
    with pytest.raises(ft.ForetrainError, match="8"):
        ft.load_model("timm:vit_tiny_patch16_224", image_size=8)


def test_names_of_old_are_resolved_as_timm_does() -> None:
    """A deprecated name is the model it became."""
    old, new = ft.load_model("timm:gluon_resnet50_v1b"), ft.load_model("timm:resnet50.gluon_in1k")
    assert old.parameters == new.parameters


def test_a_model_is_traced_once_in_a_process() -> None:
    """The second time is the same object."""
    assert ft.load_model("timm:resnet18") is ft.load_model("timm:resnet18")


def test_the_command_line_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Simulated, shown, overridden, and refused with the nearest name."""
    job = ("--cluster", "dgx-a100-80gb:1", "--software", "pytorch-eager", "--global-batch", "64")
    assert run(["simulate", "--model", "timm:resnet18", "--image-size", "160", *job]) == 0
    assert run(["simulate", "--model", "timm:resnet18", "--set", "model.image_size=160", *job]) == 0
    assert run(["show", "timm:resnet18"]) == 0
    capsys.readouterr()
    assert run(["simulate", "--model", "timm:resnet81", *job]) == 2
    assert "resnet18" in capsys.readouterr().err
