"""Maps that a network keeps for backward against what autograd keeps."""

from __future__ import annotations

from typing import Any

import pytest

from foretrain.models.load import load_model
from foretrain.models.ops import Layout
from tests.models import vision

torch = pytest.importorskip("torch")
BATCH = 2


@pytest.mark.parametrize(
    ("name", "reference", "size"),
    [("resnet-18", "resnet18", 64), ("resnet-50", "resnet50", 64), ("vgg-11", "vgg11", 32), ("vgg-11-bn", "vgg11_bn", 32),
     ("densenet-121", "densenet121", 64)],
)  # fmt: skip
def test_a_network_keeps_what_autograd_keeps(name: str, reference: str, size: int) -> None:
    """Every tensor in fp32, weights and the statistics of normalisations apart; the loss left out on both sides."""
    net = getattr(vision.library("torchvision").models, reference)().train()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            # The kernel that keeps a mask of one byte an element, as accelerators run it.
            module.forward = lambda x: torch.native_dropout(x, 0.5, True)[0]  # noqa: FBT003  # torch's signature
    own = {weight.untyped_storage().data_ptr() for weight in (*net.parameters(), *net.buffers())}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        if tensor.dim() > 1 and tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(torch.randn(BATCH, 3, size, size))
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    layout = Layout(micro_batch=BATCH, element_bytes=4.0)
    blocks = load_model(name).at_image(size).blocks()
    predicted = sum(count * op.saved_bytes(layout) for block, count in blocks for op in block.ops if op.name != "cross_entropy")
    assert predicted == pytest.approx(measured, rel=0.01)
